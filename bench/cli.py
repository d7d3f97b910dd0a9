"""Run the rows, keep their figures, report them.

    bench/run [quick] [ROW ...]      all rows, or those named (E1 M2 ...); `quick` takes one short round
    bench/run --report               docs/performance.md's tables and plot, from the figures that are kept
    bench/run profile                flame graphs of the echo and of the bridged path, into docs/

Figures are kept row by row in bench/out/results.json, so a run can be broken off and gone on with.
`--ahead` runs ahead of all other work of the machine (needs root); `--loud` shows what the processes say.
"""

import argparse
import json
import os
import sys
import time

from bench.lab import OUT, language
from bench.machine import LOAD_CORE, described, go_ahead, pin
from bench.measures import both_legs, control, media, provider, workers
from bench.profiles import draw
from bench.report import show, write
from bench.rows import FULL, QUICK, Measure, Pace, Row
from bench.venvs import versions
from rich.console import Console

OTHERS = os.getloadavg()[0]
"What the machine was doing before we came."
RESULTS = OUT / "results.json"
MEASURES: list[tuple[Row, Measure]] = [
    *control.MEASURES,
    *media.MEASURES,
    *both_legs.MEASURES,
    *provider.MEASURES,
    *workers.MEASURES,
]


def kept() -> dict[str, Row]:
    """Return the rows whose figures are kept."""
    if not RESULTS.exists():
        return {}
    rows = json.loads(RESULTS.read_text())["rows"]
    return {row.key: Row.from_json(rows[row.key]) for row, _ in MEASURES if row.key in rows}


def keep(row: Row, pace: Pace) -> None:
    """Keep a row's figures, beside those of the others."""
    rows = kept() | {row.key: row}
    about = {
        "machine": described(),
        "peers": versions(),
        "load": language(),
        "rounds": pace.rounds,
        "others": OTHERS,
    }
    OUT.mkdir(exist_ok=True)
    stored = {"about": about, "rows": {key: row.to_json() for key, row in rows.items()}}
    RESULTS.write_text(json.dumps(stored, indent=1))


def run(console: Console, keys: list[str], pace: Pace) -> int:
    """Measure; return how many rows failed to be measured."""
    failed = 0
    console.print(f"{described()}; load in {language()}, on a core of its own")
    if not pin(LOAD_CORE):
        console.print("Only one core here: load and server share it, so the latencies mean little.")
    for row, measure in MEASURES:
        if keys and row.key not in keys:
            continue
        began = time.monotonic()
        try:
            measure(row, pace)
        except Exception as error:  # the other rows can still be measured
            console.print(f"[bold red]{row.key} could not be measured: {type(error).__name__}: {error}")
            failed += 1
            continue
        row.seconds = round(time.monotonic() - began, 1)
        row.taken = time.strftime("%Y-%m-%d %H:%M")
        keep(row, pace)
        show(console, row)
    return failed


def main() -> int:
    """Do as the command line says; exit code 1 where a row could not be measured. (A missed bar is a result.)"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="quick, profile, or rows")
    parser.add_argument("--report", action="store_true", help="write docs/performance.md's tables and plot")
    parser.add_argument("--ahead", action="store_true", help="run ahead of all other work of this machine")
    parser.add_argument("--loud", action="store_true", help="show what the measured processes say")
    options = parser.parse_intermixed_args()
    console = Console(highlight=False)
    words = list(options.words)
    pace = QUICK if "quick" in words else FULL
    keys = [word for word in words if word not in ("quick", "profile")]
    unknown = set(keys) - {row.key for row, _ in MEASURES}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.ahead:
        go_ahead()
    if options.report:
        write(json.loads(RESULTS.read_text())["about"], kept())
        return 0
    if "profile" in words:
        for path in draw():
            console.print(f"drawn: {path.relative_to(OUT.parent.parent)}")
        return 0
    began = time.monotonic()
    failed = run(console, keys, pace)
    console.print(f"{time.monotonic() - began:.0f} s; kept in {RESULTS.relative_to(OUT.parent.parent)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
