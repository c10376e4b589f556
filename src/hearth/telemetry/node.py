"""The telemetry of one node, which its components get handed in; two nodes in one process share none."""

from __future__ import annotations

from hearth.telemetry import logs
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.tracing import Tracing


class Telemetry:
    """Metrics and spans of one node.

    Args:
        metrics: Default: without any value.
        tracing: Default: spans are timed, not exported.
    """

    __slots__ = ("metrics", "tracing")

    def __init__(self, metrics: Metrics | None = None, tracing: Tracing | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.tracing = tracing or Tracing(self.metrics)
        dropped = self.metrics.counter("hearth_log_lines_dropped")
        self.metrics.before_scrape(lambda: dropped.set(logs.dropped()))
