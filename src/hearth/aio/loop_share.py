"""Long work on the event loop, spread over its turns.

One piece of work may take milliseconds, and after each piece all other tasks have a turn. But many calls may have a
piece each in the same turn. So pieces share a budget: when it is used up, the next pieces wait for later turns, in
order of arrival::

    share = loop_share()
    await share.turn()
    with share:
        decode(piece)

A turn thus takes at most the budget and one piece. Usually there is time left, and no piece waits.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from typing import Final

#: Seconds for all pieces of one turn. A piece that starts within the budget may end after it.
BUDGET_S: Final = 0.005


class LoopShare:
    """The budget of one event loop; made by :func:`loop_share`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._used_s = 0.0
        self._entered_s = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    def __repr__(self) -> str:
        return f"<LoopShare used={self._used_s:g}s waiting={len(self._waiters)}>"

    async def turn(self) -> None:
        """Wait for a turn of the loop with time left for one more piece of work."""
        if self._used_s < BUDGET_S and not self._waiters:
            return
        first = False
        while True:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if first:
                self._waiters.appendleft(waiter)
            else:
                self._waiters.append(waiter)
            self._await_turn()
            await waiter
            if self._used_s < BUDGET_S:
                return
            first = True  # a caller that did not have to wait was faster

    def __enter__(self) -> None:
        self._entered_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._used_s += time.perf_counter() - self._entered_s
        if self._used_s >= BUDGET_S:
            self._await_turn()

    def _await_turn(self) -> None:
        if not self._is_due and (loop := self._loop()) is not None:
            self._is_due = True
            loop.call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_due = False
        self._used_s = 0.0
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():  # it may have given up
                waiter.set_result(None)
                break
        if self._waiters:
            self._await_turn()


_shares: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopShare] = weakref.WeakKeyDictionary()


def loop_share() -> LoopShare:
    """Return the share of the running event loop."""
    loop = asyncio.get_running_loop()
    share = _shares.get(loop)
    if share is None:
        share = _shares[loop] = LoopShare(loop)
    return share
