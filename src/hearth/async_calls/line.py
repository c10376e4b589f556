"""Calls that a node holds and that do not wait for a container yet. Apps take turns."""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Line(Generic[T]):
    """Lets a limited number of calls wait for a container; of each app one more, so that no app waits for another.

    Args:
        most: How many may wait for a container, of all apps together.
    """

    def __init__(self, most: int) -> None:
        self.waiting = 0
        self._most = most
        self._calls: dict[str, deque[T]] = {}
        self._in_line: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Line apps={len(self._calls)} waiting={self.waiting}>"

    def add(self, app: str, call: T) -> None:
        """Add a call behind those of its app."""
        self._calls.setdefault(app, deque()).append(call)

    def next(self, *, always: bool = False) -> T | None:
        """Let the next call wait for a container, and return it; :meth:`leave` follows. ``None`` if none may.

        Args:
            always: Whatever the limit is.
        """
        for app, calls in self._calls.items():
            if always or self.waiting < self._most or app not in self._in_line:
                del self._calls[app]  # its next turn comes after those of the others
                call = calls.popleft()
                if calls:
                    self._calls[app] = calls
                self._in_line[app] += 1
                self.waiting += 1
                return call
        return None

    def leave(self, app: str) -> bool:
        """Count a call out. Return whether others should follow: many at once, or the first of an app."""
        self.waiting -= 1
        self._in_line[app] -= 1
        if not self._in_line[app]:
            del self._in_line[app]
            if app in self._calls:
                return True
        return self.waiting <= self._most // 2
