"""Hands accepted calls to the runners that wait for them."""

from __future__ import annotations

import asyncio
import dataclasses
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


@dataclasses.dataclass(slots=True, eq=False)
class _Group:
    """Runners that wait for calls of the same apps.

    Attributes:
        polls: In order of arrival.
        taking: The look into the queue for them.
    """

    polls: dict[_Poll, None] = dataclasses.field(default_factory=dict)
    taking: asyncio.Task[list[Reserved]] | None = None


class Dispatcher:
    """Reads the queue for all waiting runners, once for those that leave out the same apps. An async context manager.

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
        self._quiet_until = 0.0
        self._groups: dict[frozenset[str], _Group] = {}
        self._stopping = False
        self._serving = Background()
        self._background = Background()

    def __repr__(self) -> str:
        return f"<Dispatcher waiting={sum(len(group.polls) for group in self._groups.values())}>"

    async def __aenter__(self) -> Dispatcher:
        self._quiet_until = self._clock.monotonic() + self._quiet_s
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.stop()
        await self._serving.cancel()
        await self._background.join()

    def stop(self) -> None:
        """End every wait at once, without a call. Idempotent."""
        self._stopping = True
        for group in self._groups.values():
            for poll in group.polls:
                _end(poll)

    async def take(self, limit: int, wait_s: float, without: frozenset[str] = frozenset()) -> list[Reserved]:
        """Wait for calls of all apps except some, at most ``wait_s``.

        A cancelled wait releases calls that were dealt in the same moment.

        Raises:
            ServerBusy: The node stops.
        """
        if self._stopping:
            raise ServerBusy
        poll = _Poll(limit)
        timer = self._clock.call_at(self._clock.monotonic() + wait_s, _end, poll)
        group = self._groups.get(without)
        if group is None:
            group = self._groups[without] = _Group()
            self._serving.run(self._serve(group, without))
        group.polls[poll] = None
        try:
            return await poll.hand
        except asyncio.CancelledError:
            if poll.hand.done() and not poll.hand.cancelled():
                self.give_back(poll.hand.result())
            raise
        finally:
            timer.cancel()
            group.polls.pop(poll, None)
            if not group.polls and group.taking is not None:
                group.taking.cancel()

    def give_back(self, reserved: list[Reserved]) -> None:
        """Release calls that could not be delivered, for others to take at once."""
        for one in reserved:
            self._background.run(self._release(one.lease))

    async def _release(self, lease: str) -> None:
        try:
            await self._accepted.release(lease)
        except HearthError as exc:
            _log.warning("call not given back, its lease will end", error=str(exc))

    async def _serve(self, group: _Group, without: frozenset[str]) -> None:
        """Hand calls to the runners of a group until none waits."""
        await pause(self._clock, max(0.0, self._quiet_until - self._clock.monotonic()))
        while group.polls:
            try:
                await self._hand_out(group, without)
            except Exception as exc:  # runners keep waiting for the queue
                _log.error("error fetching queued calls", error=str(exc), exc_info=exc)
                await pause(self._clock, _TRY_AGAIN_S)
        del self._groups[without]

    async def _hand_out(self, group: _Group, without: frozenset[str]) -> None:
        wanted = min(sum(poll.limit for poll in group.polls), max(_MAX_AT_ONCE, len(group.polls)))
        taking = group.taking = self._background.start(self._accepted.dequeue(wanted, without))
        try:
            await asyncio.wait([taking])
        finally:
            group.taking = None
            if not taking.done():
                taking.cancel()
                await asyncio.wait([taking])  # the queue closes after that
            failure = None if taking.cancelled() else taking.exception()
            if not taking.cancelled() and failure is None:
                self._deal(group, taking.result())
        if failure is not None:
            raise failure

    def _deal(self, group: _Group, reserved: list[Reserved]) -> None:
        """Give the calls to the waiting runners in turn, up to the limit of each."""
        hands: dict[_Poll, list[Reserved]] = {}
        turns = deque(poll for poll in group.polls if not poll.hand.done())
        left = deque(reserved)
        while left and turns:
            poll = turns.popleft()
            hand = hands.setdefault(poll, [])
            hand.append(left.popleft())
            if len(hand) < poll.limit:
                turns.append(poll)
        for poll, hand in hands.items():
            del group.polls[poll]
            poll.hand.set_result(hand)
        self.give_back(list(left))


def _end(poll: _Poll) -> None:
    if not poll.hand.done():
        poll.hand.set_result([])
