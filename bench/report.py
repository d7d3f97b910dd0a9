"""What was measured, as tables: on the terminal, and in docs/performance.md."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.rows import Goal, Row
from bench.venvs import HERE, python
from rich.console import Console
from rich.table import Table

OUT = HERE / "out"
PAGE = HERE.parent / "docs" / "performance.md"
OTHERS = 0.7
"A load average from which on the machine was not ours alone."
BEGIN, END = "<!-- figures: bench/run --report -->", "<!-- end of the figures -->"


def show(console: Console, row: Row) -> None:
    """Print a row: the figures of every server, and how dueto's stand to what is asked of them."""
    header = ("", *(f"{metric.title} {metric.unit}".rstrip() for metric in row.metrics.values()))
    print_table(console, f"\n{row.key}  {row.title}  ({row.seconds:.0f} s)", header, cells(row))
    for goal, figure, bar, met in row.verdicts():
        metric = row.metrics[goal.metric]
        verdict = "[green]met" if met else "[bold red]missed"
        console.print(f"   {goal.text(metric)}: {figure:.{metric.digits}f} against {bar:.{metric.digits}f}: {verdict}")
    for note in row.notes:
        console.print(f"   [dim]{note}")


def cells(row: Row) -> list[tuple[str, ...]]:
    """Return the medians as text, a line for each server."""
    lines = []
    for server in row.samples:
        figures = []
        for name, metric in row.metrics.items():
            figure = row.median(server, name)
            figures.append("" if figure is None else f"{figure:.{metric.digits}f}")
        lines.append((server, *figures))
    return lines


def print_table(console: Console, title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a table; its first column is words, the others are numbers."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def write(about: dict[str, Any], rows: dict[str, Row]) -> None:
    """Write the figures into docs/performance.md, between its two marks, and draw docs/performance.png."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE} has lost its marks {BEGIN} and {END}")
    PAGE.write_text(before + BEGIN + "\n\n" + "\n".join(_markdown(about, rows)) + "\n" + END + after)
    drawn = OUT / "plot.json"
    verdicts = [
        {"row": key, "text": goal.text(row.metrics[goal.metric]), "share": _share(goal, figure, bar), "met": met}
        for key, row in rows.items()
        for goal, figure, bar, met in row.verdicts()
    ]
    drawn.write_text(json.dumps({"verdicts": verdicts, "rows": {key: row.to_json() for key, row in rows.items()}}))
    subprocess.run([python("tools"), HERE / "plot.py", drawn, PAGE.with_suffix(".png")], check=True)


def _sizing(rows: dict[str, Row]) -> Iterator[str]:
    """Say how many calls of a kind to plan for."""
    found = {
        "that are echoed, or whose agent costs next to nothing (M2)": ("M2", "calls"),
        "that talk to a realtime provider over TLS at 16 kHz (R2)": ("R2", "calls"),
    }
    yield ""
    yield "### Sizing: calls per core by agent kind"
    yield ""
    yield "| calls | a core carried | plan for |"
    yield "| --- | ---: | ---: |"
    for kind, (key, metric) in found.items():
        carried = rows[key].median("dueto", metric) if key in rows else None
        if carried:
            yield f"| {kind} | {carried:.0f} | {carried * 0.6:.0f} |"
    yield ""
    yield "Planned for is 60 %: calls come in clusters; the rest is for bursts of set-ups and hangups. An agent that"
    yield "computes itself (speech recognition, a model in the process) comes on top, and mostly is the larger part."


def _share(goal: Goal, figure: float, bar: float) -> float:
    """Return how much of its bar a figure takes: 1 is just met, less is better; 0 where that can't be said."""
    if goal.least:
        return bar / figure if figure else 0
    return figure / bar if bar else 0


def _markdown(about: dict[str, Any], rows: dict[str, Row]) -> Iterator[str]:
    peers = ", ".join(f"{name} {version}" for name, version in about["peers"].items())
    yield f"{about['machine']}. Peers: {peers}. Load in {about['load']}."
    yield f"Medians of {about['rounds']} interleaved rounds (M2, E4 and R2: two at most)."
    if about["others"] >= OTHERS:
        load = about["others"]
        yield f"The machine had other work as well (load average {load:.0f} before the start): the latencies are those"
        yield "of its scheduling, and caches that others use make every CPU figure larger."
    yield ""
    yield "![How dueto stands to its bars, and how the echo's cost grows](performance.png)"
    yield ""
    yield "| row | asked | measured | bar | |"
    yield "| --- | --- | ---: | ---: | --- |"
    missed: dict[str, list[str]] = {}
    for key, row in rows.items():
        for goal, figure, bar, met in row.verdicts():
            metric = row.metrics[goal.metric]
            text = goal.text(metric) + ("" if goal.ours == "dueto" else f" ({goal.ours})")
            share = _share(goal, figure, bar)
            verdict = "met" if met else f"**missed**, {share:.2f} x" if share else "**missed**"
            yield f"| {key} | {text} | {figure:.{metric.digits}f} | {bar:.{metric.digits}f} | {verdict} |"
            if not met and goal.why:
                missed.setdefault(goal.why, []).append(f"{key}, {text}")
    if missed:
        yield ""
        yield "Why what is missed is missed:"
        yield ""
        for why, bars in missed.items():
            yield f"- {'; '.join(bars)}: {why}."
    yield from _sizing(rows)
    for key, row in rows.items():
        yield ""
        yield f"### {key}: {row.title}"
        yield ""
        yield "| | " + " | ".join(f"{metric.title} {metric.unit}".rstrip() for metric in row.metrics.values()) + " |"
        yield "| --- |" + " ---: |" * len(row.metrics)
        for line in cells(row):
            yield "| " + " | ".join(line) + " |"
        if row.notes:
            yield ""
            yield " ".join(f"{note[0].upper()}{note[1:]}." for note in row.notes)
