"""How `dueto simulate` looks: progress while it runs, a table (or JSON) at the end."""

import json
import time
from array import array
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dueto.app.simulate import IN_FLIGHT_S, Load, Result, percentile, summary

PLAIN_EVERY_S = 5.0
"Between two lines of progress where nobody looks at a terminal."


class LoadProgress:
    """Shows on stderr how far it is: a bar on a terminal, else a line now and then."""

    def __init__(self, load: Load) -> None:
        self._console = Console(stderr=True)
        self._calls = load.calls
        self._shown_at = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} over"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("placing calls", total=load.calls)

    def update(self, result: Result) -> None:
        """Take the latest figures. Called whenever a call begins or ends."""
        text = f"{result.placed} placed, {result.placed - result.finished} up"
        self._bar.update(self._task, description=text, completed=result.finished)
        if not self._console.is_terminal and time.monotonic() - self._shown_at >= PLAIN_EVERY_S:
            self._shown_at = time.monotonic()
            self._console.print(f"{text}, {result.finished}/{self._calls} over", highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def print_report(result: Result, *, as_json: bool) -> None:
    """Print the result on stdout."""
    if as_json:
        print(json.dumps(summary(result), indent=2))
        return
    console = Console(highlight=False)
    table = Table(title="What became of the calls", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, value, remark in _rows(result):
        table.add_row(name, value, remark)
    console.print(table)
    if result.interrupted:
        console.print("[yellow]Stopped early: only the calls placed so far were judged.[/]")
    console.print("[bold green]All well.[/]" if result.ok else "[bold red]Not all well.[/]")


def _rows(result: Result) -> list[tuple[str, str, str]]:
    fates = result.fates
    reasons = "; ".join(f"{count} x {reason}" for reason, count in result.reasons.most_common(3))
    rows = [
        ("placed", str(result.placed), ""),
        ("paired", _counted(fates["paired"], result.placed), "both legs came, ended as planned and were let go"),
        ("refused", _bad(fates["refused"]), "turned away, both legs"),
        ("one leg", _bad(fates["one_leg"]), "its other leg never came"),
        ("lost", _bad(fates["lost"]), "ended early, or never let go"),
    ]
    if reasons:
        rows.append(("why", "", reasons))
    rows += [
        ("frames up", str(result.frames_up), "20 ms each"),
        ("frames down", str(result.frames_down), f"{result.gaps} gaps heard"),
    ]
    if result.echoed:
        rows += [
            (
                "frames echoed",
                str(result.frames_echoed),
                f"{result.frames_in_flight} on their way at the beginning or in the last {IN_FLIGHT_S * 1000:.0f} ms",
            ),
            ("frames lost", _bad(result.frames_lost), ""),
            ("echo", _spread(result.echo_ms), "there and back: p50 / p99 / max"),
        ]
    else:
        rows.append(("echo", "none", "the agent echoes nothing: frames can't be followed"))
    rows.append(("let go", _spread(result.let_go_ms), "from the hangup until both legs are gone: p50 / p99 / max"))
    if result.skipped_s:
        rows.append(("stalled", f"{result.skipped_s:.1f} s", "this machine was too slow to simulate that load"))
    return rows


def _counted(good: int, of: int) -> str:
    return f"[green]{good}[/]" if good == of else f"[red]{good}[/] of {of}"


def _bad(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"


def _spread(values: "array[float]") -> str:
    if not values:
        return "-"
    return f"{percentile(values, 0.5):.1f} / {percentile(values, 0.99):.1f} / {max(values):.1f} ms"
