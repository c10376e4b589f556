"""Counts of calls, as /stats shows them (operations specification 4)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class CallCounts:
    """Calls of one function, or of all. Gauges go up and down, the others only up."""

    queue: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0


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

    def queued(self, path: str) -> None:
        """A call was submitted."""
        for counts in self._of(path):
            counts.queue += 1

    def started(self, path: str) -> None:
        """It has a slot and runs."""
        for counts in self._of(path):
            counts.queue -= 1
            counts.running += 1

    def waits_again(self, path: str) -> None:
        """Its container was gone; it waits for another."""
        for counts in self._of(path):
            counts.running -= 1
            counts.queue += 1

    def ended(self, path: str, *, started: bool, failed: bool, busy: bool) -> None:
        """It is over: done, failed, or turned away because the node is full."""
        for counts in self._of(path):
            if started:
                counts.running -= 1
            else:
                counts.queue -= 1
            if failed and not busy:
                counts.failed += 1
            elif not failed:
                counts.complete += 1

    def _of(self, path: str) -> tuple[CallCounts, CallCounts]:
        counts = self._by_path.get(path)
        if counts is None:
            counts = self._by_path[path] = CallCounts()
        return self.total, counts
