"""Counts of calls, as /stats shows them (operations specification 4)."""

from __future__ import annotations

import dataclasses
import enum

from hearth.agent.life import CallState


class Outcome(enum.Enum):
    """By which door a call leaves; exactly one."""

    COMPLETE = "complete"
    FAILED = "failed"
    BUSY = "busy"
    """Turned away, or not to be run here; no failure of anybody."""


@dataclasses.dataclass(slots=True)
class CallCounts:
    """Calls of one function, or of all. ``queue`` and ``running`` go up and down, the others only up."""

    queue: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0
    busy: int = 0

    def moved(self, left: CallState | None, entered: CallState) -> None:
        """A call changed its state."""
        if left is CallState.WAIT:
            self.queue -= 1
        elif left is CallState.EXEC:
            self.running -= 1
        if entered is CallState.WAIT:
            self.queue += 1
        elif entered is CallState.EXEC:
            self.running += 1

    def left(self, outcome: Outcome) -> None:
        """A call is over."""
        if outcome is Outcome.COMPLETE:
            self.complete += 1
        elif outcome is Outcome.FAILED:
            self.failed += 1
        else:
            self.busy += 1


class CallStats:
    """The counts of a node. Every submitted call is queued once, and leaves by exactly one door."""

    def __init__(self) -> None:
        self.total = CallCounts()
        self._by_path: dict[str, CallCounts] = {}

    def __repr__(self) -> str:
        return f"<CallStats {self.total}>"

    def by_path(self) -> dict[str, CallCounts]:
        """Counts by route path."""
        return dict(self._by_path)

    def moved(self, path: str, left: CallState | None, entered: CallState) -> None:
        """A call of this path changed its state."""
        self.total.moved(left, entered)
        self._of(path).moved(left, entered)

    def left(self, path: str, outcome: Outcome) -> None:
        """A call of this path is over."""
        self.total.left(outcome)
        self._of(path).left(outcome)

    def _of(self, path: str) -> CallCounts:
        counts = self._by_path.get(path)
        if counts is None:
            counts = self._by_path[path] = CallCounts()
        return counts
