"""Counts of calls, as /stats shows them (operations specification 4)."""

from __future__ import annotations

import dataclasses

from hearth.agent.life import CallState
from hearth.agent.meters import CallMeter, Outcome


@dataclasses.dataclass(slots=True)
class CallCounts:
    """Calls of one function, or of all. ``queue`` and ``running`` go up and down, the others only up."""

    queue: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0
    busy: int = 0


class FunctionStats:
    """The calls of one function: told once, counted for the function's path, the node and the metrics."""

    __slots__ = ("_counts", "_meter", "_total")

    def __init__(self, total: CallCounts, counts: CallCounts, meter: CallMeter) -> None:
        self._total = total
        self._counts = counts
        self._meter = meter

    def moved(self, left: CallState | None, entered: CallState) -> None:
        """A call changed its state."""
        total, counts, meter = self._total, self._counts, self._meter
        if left is None:
            meter.calls.value += 1
        elif left is CallState.WAIT:
            total.queue -= 1
            counts.queue -= 1
            meter.queued.value -= 1
        elif left is CallState.EXEC:
            total.running -= 1
            counts.running -= 1
            meter.running.value -= 1
        if entered is CallState.WAIT:
            total.queue += 1
            counts.queue += 1
            meter.queued.value += 1
        elif entered is CallState.EXEC:
            total.running += 1
            counts.running += 1
            meter.running.value += 1

    def left(self, outcome: Outcome) -> None:
        """A call is over."""
        total, counts, meter = self._total, self._counts, self._meter
        if outcome is Outcome.COMPLETE:
            total.complete += 1
            counts.complete += 1
            meter.completed.value += 1
        elif outcome is Outcome.BUSY or outcome is Outcome.NOT_RUN:
            total.busy += 1
            counts.busy += 1
            if outcome is Outcome.BUSY:
                meter.busy.value += 1
        else:
            total.failed += 1
            counts.failed += 1
            meter.failed.value += 1
            (meter.timeouts if outcome is Outcome.TIMED_OUT else meter.errors).value += 1


class CallStats:
    """The counts of a node. Every submitted call is queued once, and leaves by exactly one door."""

    def __init__(self) -> None:
        self.total = CallCounts()
        self._by_path: dict[str, CallCounts] = {}
        self._functions: dict[tuple[str, str], FunctionStats] = {}

    def __repr__(self) -> str:
        return f"<CallStats {self.total}>"

    def by_path(self) -> dict[str, CallCounts]:
        """Counts by route path."""
        return dict(self._by_path)

    def of(self, app: str, path: str) -> FunctionStats:
        """Where the calls of a function are counted. Only for functions that exist: each is kept."""
        function = self._functions.get((app, path))
        if function is None:
            counts = self._by_path.setdefault(path, CallCounts())
            function = self._functions[app, path] = FunctionStats(self.total, counts, CallMeter(app, path))
        return function

    def forget(self, app: str, path: str) -> None:
        """The function is no more: what is still counted for it is told to nobody but the node's own counts."""
        self._functions.pop((app, path), None)
