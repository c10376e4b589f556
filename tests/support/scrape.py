"""The text that /metrics serves, read by Prometheus's own library."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from hearth.telemetry import metrics

Samples = dict[tuple[str, str, str], float]


def samples(text: str) -> Samples:
    """Values by name, app and path; of histograms the sums and counts."""
    return {
        (
            _name(family, sample.name),
            sample.labels.get("fn_appname", ""),
            sample.labels.get("fn_path", ""),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def _name(family: Metric, name: str) -> str:
    """The name as it was served: the library gives counters the suffix that OpenMetrics wants."""
    return family.name if family.type == "counter" else name


class Watch:
    """What this process's metrics have changed by since this was made."""

    def __init__(self) -> None:
        self._before = self._now()

    def __call__(self, name: str, app: str = "", path: str = "") -> float:
        key = (name, app, path)
        return self._now().get(key, 0.0) - self._before.get(key, 0.0)

    @staticmethod
    def _now() -> Samples:
        return samples(b"".join(metrics.exposition()).decode())
