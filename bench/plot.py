"""The figure of docs/performance.md: how dueto stands to its bars, and how the echo grows. Runs where matplotlib is.

plot.py RESULTS PNG
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

MET, MISSED, GREY = "#2a7f62", "#b5443a", "#8a8f98"


def main(results: str, png: str) -> None:
    """Draw it."""
    stored = json.loads(Path(results).read_text())
    figure, (bars, growth) = pyplot.subplots(1, 2, figsize=(11, 5.4), gridspec_kw={"width_ratios": (1.5, 1)})
    _bars(bars, stored["verdicts"])
    _growth(growth, stored["rows"].get("G1", {}).get("samples", {}))
    figure.tight_layout()
    figure.savefig(png, dpi=110, bbox_inches="tight")


def _bars(axes: Any, verdicts: list[dict[str, Any]]) -> None:
    """One bar for each goal that is a comparison: 1 is the bar, to the left of it is better."""
    shown = [one for one in verdicts if one["share"] > 0]
    for at, one in enumerate(reversed(shown)):
        axes.barh(at, one["share"], color=MET if one["met"] else MISSED, height=0.7)
        axes.text(one["share"] * 1.06, at, f"{one['share']:.2f}", va="center", fontsize=7, color=GREY)
    axes.set_yticks(range(len(shown)), [f"{one['row']}  {one['text']}" for one in reversed(shown)], fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("share of the bar; less is better, green is met")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.2)


def _growth(axes: Any, samples: dict[str, dict[str, list[float]]]) -> None:
    """CPU per frame pair over the number of calls."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for server, metrics in samples.items():
        name, _, calls = server.rpartition(", ")
        lines.setdefault(name, []).append((int(calls.split()[0]), metrics["pair_us"][0]))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name, color=MET if name == "dueto" else GREY)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("calls at once")
    axes.set_ylabel("CPU per 20 ms frame pair, us")
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main(*sys.argv[1:])
