"""What a row of the benchmark is: samples of several servers, and what is asked of dueto's."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a row."""

    title: str
    unit: str = ""
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Goal:
    """What one of dueto's figures has to be: within `times` a peer's, or within a fixed `limit`."""

    metric: str
    peer: str = ""
    times: float = 1.0
    plus: float = 0.0
    limit: float | None = None
    least: bool = False
    "Whether more is better: the figure has to reach the bar, not to stay below it."
    ours: str = "dueto"
    why: str = ""
    "Said where it is missed."

    def bar(self, row: "Row") -> float | None:
        """Return where the bar lies; None where the peer was not measured."""
        if self.limit is not None:
            return self.limit
        of_peer = row.median(self.peer, self.metric)
        return None if of_peer is None else of_peer * self.times + self.plus

    def text(self, metric: Metric) -> str:
        """Say what is asked."""
        sign = ">=" if self.least else "<="
        if self.limit is not None:
            return f"{metric.title} {sign} {self.limit:g} {metric.unit}".rstrip()
        inverse = 1 / self.times
        whole = self.times < 0.45 and abs(inverse - round(inverse)) < 0.01
        share = f"1/{inverse:.0f} of " if whole else f"{self.times:g} x "
        if self.plus:
            return f"{metric.title} {sign} {self.peer} + {self.plus:g} {metric.unit}".rstrip()
        return f"{metric.title} {sign} {share}{self.peer}"


@dataclass(slots=True)
class Row:
    """One row: its definition, and what was measured."""

    key: str
    title: str
    metrics: dict[str, Metric]
    goals: list[Goal]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    taken: str = ""
    seconds: float = 0.0

    def add(self, server: str, **values: float | None) -> None:
        """Take a server's figures of one round."""
        for metric, value in values.items():
            if value is not None:
                self.samples.setdefault(server, {}).setdefault(metric, []).append(value)

    def note(self, text: str) -> None:
        """Say something that belongs beside the figures; once."""
        if text not in self.notes:
            self.notes.append(text)

    def median(self, server: str, metric: str) -> float | None:
        """Return the median of the rounds."""
        values = self.samples.get(server, {}).get(metric)
        return statistics.median(values) if values else None

    def verdicts(self) -> Iterator[tuple[Goal, float, float, bool]]:
        """Yield each goal that can be judged, with the figure, the bar, and whether it is met."""
        for goal in self.goals:
            figure, bar = self.median(goal.ours, goal.metric), goal.bar(self)
            if figure is not None and bar is not None:
                yield goal, figure, bar, figure >= bar if goal.least else figure <= bar

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Row":
        """Read what `to_json` wrote."""
        values = dict(values)
        values["metrics"] = {name: Metric(**metric) for name, metric in values["metrics"].items()}
        values["goals"] = [Goal(**goal) for goal in values["goals"]]
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long everything takes."""

    rounds: int = 3
    scale: float = 1.0
    step: float = 0.05
    "By what share more calls are tried, where it is asked how many a core carries."
    tries: int = 3
    "How often so many may fail: a stall of the machine is not the server's."

    def seconds(self, usual: float) -> float:
        """Return how long to measure what usually takes `usual` seconds."""
        return usual * self.scale

    def count(self, usual: int) -> int:
        """Return how many of something to do, usually `usual`."""
        return max(round(usual * self.scale), 1)


FULL, QUICK = Pace(), Pace(rounds=1, scale=0.3, step=0.3, tries=1)
Measure = Callable[[Row, Pace], None]
