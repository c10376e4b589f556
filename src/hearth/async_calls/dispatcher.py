"""Hands accepted calls to the runners that wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from hearth.access.base import AcceptedCalls
from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
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
    """One reader of the queue for all waiting runners. An async context manager.

    Calls are shared evenly, in the order in which the runners came. None is taken while no runner waits.

    Args:
        accepted: Where accepted calls are.
        quiet_s: Seconds after the start for which no call is handed out: runners first deliver the ends of calls that
            ran while no API node was there.
    """

    def __init__(self, accepted: AcceptedCalls, clock: Clock, *, quiet_s: float = 0.0) -> None:
        self._accepted = accepted
        self._clock = clock
        self._quiet_s = quiet_s
        self._polls: dict[_Poll, None] = {}  # in order of arrival
        self._came = asyncio.Event()
        self._taking: asyncio.Task[list[Reserved]] | None = None
        self._stopping = False
        self._serving = Background()
        self._background = Background()

    def __repr__(self) -> str:
        return f"<Dispatcher waiting={len(self._polls)}>"

    async def __aenter__(self) -> Dispatcher:
        self._serving.run(self._serve_always())
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.stop()
        await self._serving.cancel()
        await self._background.join()

    def stop(self) -> None:
        """End every wait at once, without a call. Idempotent."""
        self._stopping = True
        for poll in self._polls:
            if not poll.hand.done():
                poll.hand.set_result([])

    async def take(self, limit: int, wait_s: float) -> list[Reserved]:
        """Wait for calls, at most ``wait_s``. A cancelled wait releases calls that were dealt in the same moment.

        Raises:
            ServerBusy: The node stops.
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
        """Release calls that could not be delivered, for others to take at once."""
        for one in reserved:
            self._background.run(self._release(one.lease))

    async def _release(self, lease: str) -> None:
        try:
            await self._accepted.release(lease)
        except HearthError as exc:
            _log.warning("call not given back, its lease will end", error=str(exc))

    async def _serve_always(self) -> None:
        await pause(self._clock, self._quiet_s)
        while True:
            try:
                await self._serve()
            except Exception as exc:  # runners keep waiting for the queue
                _log.error("error fetching queued calls", error=str(exc), exc_info=exc)
                await pause(self._clock, _TRY_AGAIN_S)

    async def _serve(self) -> None:
        while not self._polls:
            self._came.clear()
            await self._came.wait()
        wanted = min(sum(poll.limit for poll in self._polls), max(_MAX_AT_ONCE, len(self._polls)))
        taking = self._taking = self._background.start(self._accepted.dequeue(wanted))
        try:
            await asyncio.wait([taking])
        finally:
            self._taking = None
            if not taking.done():
                taking.cancel()
                await asyncio.wait([taking])  # the queue closes after that
            failure = None if taking.cancelled() else taking.exception()
            if not taking.cancelled() and failure is None:
                self._deal(taking.result())
        if failure is not None:
            raise failure

    def _deal(self, reserved: list[Reserved]) -> None:
        """Give the calls to the waiting runners in turn, up to the limit of each."""
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
