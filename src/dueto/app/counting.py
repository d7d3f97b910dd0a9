"""Counters, gauges and histograms in plain numbers; what Prometheus wants is made of them when it asks.

The client library's own take a lock for every step, since its values may be counted in any thread. Ours are counted on
the event loop alone, some fifteen times a call, and read there too.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """One number: a counter's, or a gauge's."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.created = time.time()

    def inc(self, amount: float = 1.0) -> None:
        """Add."""
        self.value += amount

    def dec(self) -> None:
        """Take one away: a gauge's may fall."""
        self.value -= 1.0

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """What Prometheus is told: a suffix of the name, labels besides the family's own, the value."""
        yield "", {}, self.value


class Counted(Tally):
    """A number that only grows."""

    __slots__ = ()

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """As of Tally."""
        yield "_total", {}, self.value
        yield "_created", {}, self.created


class Spread:
    """How values are spread over buckets: each counts those up to its bound, and the last one all."""

    __slots__ = ("_bounds", "_counts", "_sum", "created")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self.created = time.time()

    def observe(self, value: float) -> None:
        """Take one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """As of Tally."""
        so_far = list(accumulate(self._counts))
        for bound, count in zip((*self._bounds, float("inf")), so_far, strict=True):
            yield "_bucket", {"le": str(floatToGoString(bound))}, count  # type: ignore[no-untyped-call]
        yield "_count", {}, so_far[-1]
        yield "_sum", {}, self._sum
        yield "_created", {}, self.created


Value = TypeVar("Value", Tally, Counted, Spread)


class Family(Collector, Generic[Value]):
    """All values of one name, by their labels. Without labels there is one, which is there from the start."""

    def __init__(
        self, kind: Literal["counter", "gauge", "histogram"], name: str, text: str, labels: tuple[str, ...],
        make: Callable[[], Value], registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        self._kind, self._name, self._text, self._labels = kind, name, text, labels
        self._make: Callable[[], Value] = make
        self._values: dict[tuple[str, ...], Value] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Value:
        """The value of these labels, in the order of their names."""
        found = self._values.get(values)
        if found is None:
            found = self._values[values] = self._make()
        return found

    def describe(self) -> Iterator[Metric]:
        """What it is, without its values."""
        yield Metric(self._name, self._text, self._kind)

    def collect(self) -> Iterator[Metric]:
        """All of it, in Prometheus' words."""
        metric = Metric(self._name, self._text, self._kind)
        for values, value in self._values.items():
            labels = dict(zip(self._labels, values, strict=True))
            for suffix, more, number in value.samples():
                metric.add_sample(self._name + suffix, labels | more, number)
        yield metric
