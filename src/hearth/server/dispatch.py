"""Hands accepted calls to the runners that wait for some."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from hearth.access.base import DataAccess
from hearth.clock import Clock, pause
from hearth.models.errors import HearthError, ServerBusy
from hearth.queues.base import Reserved
from hearth.telemetry.logs import get_logger

_MAX_AT_ONCE: Final = 64
_TRY_AGAIN_S: Final = 1.0

_log = get_logger(__name__)


class _Poll:
    """A runner that waits for up to ``limit`` calls."""

    __slots__ = ("hand", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hand: asyncio.Future[list[Reserved]] = asyncio.get_running_loop().create_future()


class Dispatcher:
    """One reader of the queue for all the runners that wait, however many. An async context manager.

    What is there is dealt out evenly, in the order in which the runners came. Nothing is taken while nobody waits.

    Args:
        access: Where accepted calls are.
        quiet_s: Seconds after the start for which nothing is handed out: runners first tell how the calls ended that
            ran while no API node was there.
    """

    def __init__(self, access: DataAccess, clock: Clock, *, quiet_s: float = 0.0) -> None:
        self._access = access
        self._clock = clock
        self._quiet_s = quiet_s
        self._polls: dict[_Poll, None] = {}  # in order of arrival
        self._came = asyncio.Event()
        self._taking: asyncio.Task[list[Reserved]] | None = None
        self._stopping = False
        self._releases: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Dispatcher waiting={len(self._polls)}>"

    async def __aenter__(self) -> Dispatcher:
        self._loop = asyncio.get_running_loop().create_task(self._for_ever())
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.stop()
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        if self._releases:
            await asyncio.wait(self._releases)

    def stop(self) -> None:
        """End every wait at once, with nothing. Idempotent."""
        self._stopping = True
        for poll in self._polls:
            if not poll.hand.done():
                poll.hand.set_result([])

    async def take(self, limit: int, wait_s: float) -> list[Reserved]:
        """Wait for calls, so long at most. Cancelling gives back what was dealt in that very moment.

        Raises:
            ServerBusy: The node is about to stop.
        """
        if self._stopping:
            raise ServerBusy
        poll = _Poll(limit)
        timer = self._clock.call_at(self._clock.monotonic() + wait_s, _end, poll)
        self._polls[poll] = None
        self._came.set()
        try:
            return await poll.hand
        except asyncio.CancelledError:
            if poll.hand.done() and not poll.hand.cancelled():
                self.give_back(poll.hand.result())
            raise
        finally:
            timer.cancel()
            self._polls.pop(poll, None)
            if not self._polls and self._taking is not None:
                self._taking.cancel()

    def give_back(self, reserved: list[Reserved]) -> None:
        """Let others have at once what could not be delivered."""
        for one in reserved:
            task = asyncio.get_running_loop().create_task(self._release(one.lease))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release(self, lease: str) -> None:
        try:
            await self._access.release(lease)
        except HearthError as exc:
            _log.warning("call not given back, its lease will end", error=str(exc))

    async def _for_ever(self) -> None:
        await pause(self._clock, self._quiet_s)
        while True:
            try:
                await self._serve()
            except Exception as exc:  # whatever the queue does, runners keep waiting for it
                _log.error("error fetching queued calls", error=str(exc), exc_info=exc)
                await pause(self._clock, _TRY_AGAIN_S)

    async def _serve(self) -> None:
        while not self._polls:
            self._came.clear()
            await self._came.wait()
        wanted = min(sum(poll.limit for poll in self._polls), max(_MAX_AT_ONCE, len(self._polls)))
        taking = self._taking = asyncio.get_running_loop().create_task(self._access.dequeue(wanted))
        try:
            await asyncio.wait([taking])
        finally:
            self._taking = None
            if not taking.done():
                taking.cancel()
                await asyncio.wait([taking])  # the queue is closed after that
            failure = None if taking.cancelled() else taking.exception()
            if not taking.cancelled() and failure is None:
                self._deal(taking.result())
        if failure is not None:
            raise failure

    def _deal(self, reserved: list[Reserved]) -> None:
        """One after the other to each in turn, as long as it wants more."""
        hands: dict[_Poll, list[Reserved]] = {}
        turns = deque(poll for poll in self._polls if not poll.hand.done())
        left = deque(reserved)
        while left and turns:
            poll = turns.popleft()
            hand = hands.setdefault(poll, [])
            hand.append(left.popleft())
            if len(hand) < poll.limit:
                turns.append(poll)
        for poll, hand in hands.items():
            del self._polls[poll]
            poll.hand.set_result(hand)
        self.give_back(list(left))


def _end(poll: _Poll) -> None:
    if not poll.hand.done():
        poll.hand.set_result([])
