"""Counts of calls, as /stats shows them (operations specification 4)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from hearth.agent.meters import CallMeter
from hearth.models.function import FunctionRef
from hearth.telemetry.metrics import Metrics


@dataclasses.dataclass(slots=True)
class CallCounts:
    """Calls of one name, or of all. ``queue`` and ``running`` go up and down, the others only up."""

    queue: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0
    busy: int = 0


class FunctionStats(NamedTuple):
    """The numbers that the calls of one function change: those of all functions of its name, and its metrics."""

    counts: CallCounts
    meter: CallMeter


class CallStats:
    """The counts of a node. Every submitted call is queued once, and leaves by exactly one door."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._by_name: dict[str, CallCounts] = {}

    def __repr__(self) -> str:
        return f"<CallStats {self.total}>"

    @property
    def total(self) -> CallCounts:
        """Return the counts of all calls."""
        total = CallCounts()
        for counts in self._by_name.values():
            total.queue += counts.queue
            total.running += counts.running
            total.complete += counts.complete
            total.failed += counts.failed
            total.busy += counts.busy
        return total

    def by_name(self) -> dict[str, CallCounts]:
        """Return the counts by the names of functions: functions of different apps share one."""
        return dict(self._by_name)

    def of(self, ref: FunctionRef) -> FunctionStats:
        """Return the counters of a function's calls."""
        return FunctionStats(self._by_name.setdefault(ref.name, CallCounts()), CallMeter(self._metrics, ref))
