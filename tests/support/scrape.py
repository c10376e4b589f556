"""Metrics as Prometheus's own library reads them: from the text that /metrics serves, or from a node's collector."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from hearth.telemetry.metrics import Metrics

Samples = dict[tuple[str, str, str], float]


def samples(text: str) -> Samples:
    """Return values by name, app and path; of histograms the sums and counts."""
    return _of(text_string_to_metric_families(text))


def _of(families: Iterable[Metric]) -> Samples:
    return {
        (
            _name(family, sample.name),
            sample.labels.get("fn_appname", ""),
            sample.labels.get("fn_path", ""),
        ): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def _name(family: Metric, name: str) -> str:
    """The name as it was served: the library gives counters the suffix that OpenMetrics wants."""
    return family.name if family.type == "counter" else name


class Watch:
    """Read what a node has counted."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def __call__(self, name: str, app: str = "", path: str = "") -> float:
        return _of(self.metrics.collect()).get((name, app, path), 0.0)
