"""Limits of how many async calls of a function run on this node at one time."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from typing import Final

from hearth.models.call import Call
from hearth.models.errors import ServerBusy

#: Calls of one function that wait here until others of it have ended; further ones go back to the queue.
_MAX_WAITING: Final = 4


class FunctionLimits:
    """Counts the calls of functions that have a limit.

    Attributes:
        stopping: No call waits any more.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._inside: Counter[tuple[str, str]] = Counter()
        self._waiters: dict[tuple[str, str], OrderedDict[asyncio.Future[None], int]] = {}

    def __repr__(self) -> str:
        return f"<FunctionLimits inside={self._inside.total()}>"

    def is_full(self, call: Call) -> bool:
        """Return whether a call would have to wait."""
        return bool(call.max_concurrent) and self._inside[_key(call)] >= call.max_concurrent

    def may_wait(self, call: Call) -> bool:
        """Return whether another call of a function may wait here."""
        return not self.stopping and len(self._waiters.get(_key(call), ())) < _MAX_WAITING

    async def enter(self, call: Call) -> None:
        """Wait until fewer calls of its function are inside than its limit; :meth:`leave` follows.

        A cancelled wait leaves no trace.

        Raises:
            ServerBusy: The node takes no call any more.
        """
        key = _key(call)
        if self.enter_nowait(call):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(key, OrderedDict())
        waiters[waiter] = call.max_concurrent
        try:
            await waiter
        except asyncio.CancelledError:
            if waiters.pop(waiter, None) is None and not waiter.cancelled() and waiter.exception() is None:
                self.leave(call)  # let in in the very tick in which it gave up
            raise
        finally:
            if not waiters and self._waiters.get(key) is waiters:
                del self._waiters[key]

    def enter_nowait(self, call: Call) -> bool:
        """Count a call in if its limit leaves room and no other waits."""
        key = _key(call)
        if key in self._waiters or self._inside[key] >= call.max_concurrent:
            return False
        self._inside[key] += 1
        return True

    def leave(self, call: Call) -> None:
        """Count a call out, and let those in that wait and fit."""
        key = _key(call)
        self._inside[key] -= 1
        waiters = self._waiters.get(key, OrderedDict())
        while waiters:
            waiter, most = next(iter(waiters.items()))
            if self._inside[key] >= most:
                break
            del waiters[waiter]
            if not waiter.done():
                self._inside[key] += 1
                waiter.set_result(None)
        if not self._inside[key]:
            del self._inside[key]

    def stop(self) -> None:
        """End the wait of all calls."""
        self.stopping = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(ServerBusy())
            waiters.clear()


def _key(call: Call) -> tuple[str, str]:
    return call.app_name, call.path
