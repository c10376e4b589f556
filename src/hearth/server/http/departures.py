"""Clients that leave while their connection is not read.

The end of a stream comes after its unread bytes, so a paused connection does not see it. The kernel reports it anyway
(``EPOLLRDHUP``). So the server notices the departure of a client also if its function does not read the whole body.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable


class Departures:
    """Watches the descriptors of paused connections."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._is_looking = False
        self._left: dict[int, Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"<Departures watched={len(self._left)}>"

    def watch(self, descriptor: int, left: Callable[[], None]) -> None:
        """Call ``left`` once when the client has closed this connection."""
        if not self._is_looking:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
            self._is_looking = True
        self._left[descriptor] = left
        self._epoll.register(descriptor, select.EPOLLRDHUP)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor. Idempotent."""
        if self._left.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):  # closed already
                self._epoll.unregister(descriptor)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            left = self._left.get(descriptor)
            self.forget(descriptor)
            if left is not None:
                left()
