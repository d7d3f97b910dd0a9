"""The metrics of all workers as one: what each of them counted, added up, the dead included."""

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_KEPT = ("counter", "histogram", "summary")
"What a worker leaves behind when it ends; a gauge speaks of now."
Key = tuple[str, tuple[tuple[str, str], ...]]


class Merged(Collector):
    """Collects what workers reported last. `report` and `ended` feed it."""

    def __init__(self) -> None:
        self._now: dict[str, list[Metric]] = {}
        self._before: list[Metric] = []

    def report(self, worker: str, text: str) -> None:
        """Take a worker's metrics, in Prometheus' text format, in place of those it told before."""
        self._now[worker] = list(text_string_to_metric_families(text))

    def ended(self, worker: str) -> None:
        """That worker is gone: what it counted stays counted."""
        families = [family for family in self._now.pop(worker, []) if family.type in _KEPT]
        self._before = list(added([self._before, families]))

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        return added([self._before, *self._now.values()])


def added(reports: Iterable[Iterable[Metric]]) -> Iterator[Metric]:
    """Add samples of the same name and labels. An info is the same everywhere and stands once; births are left out."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[Key, float]] = {}
    for report in reports:
        for family in report:
            if family.name.endswith("_created"):
                continue
            families.setdefault(family.name, family)
            sums = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                known = 0.0 if sample.name.endswith("_info") else sums.get(key, 0.0)
                sums[key] = known + sample.value
    for name, family in families.items():
        merged = Metric(name, family.documentation, family.type)
        merged.samples = [Sample(sample, dict(labels), value) for (sample, labels), value in values[name].items()]
        yield merged
