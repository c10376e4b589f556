"""Memory and CPU under every order of asking, granting, giving up and returning (agent specification 14: 1, 2, 10)."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.steps import SteppedLoop

from hearth.agent import resources
from hearth.agent.shares import Share
from hearth.models.function import NOTHING, Amount

TOTAL_MIB, TOTAL_MILLI = 1000, 500
SHARED_MIB, SHARED_MILLI = 800, 400
#: How often a request may be overtaken by later ones of its own kind.
BYPASSES = 0


@dataclasses.dataclass(eq=False)
class Request:
    """One container that asks, waits, holds, returns."""

    memory_mib: int
    cpu_milli: int
    is_sync: bool
    task: asyncio.Task[None] | None = None
    reservation: Any = None
    gave_up: bool = False
    bypassed: int = 0


class TrackerMachine(RuleBasedStateMachine):
    """Anybody may do anything between two iterations of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.nothing = NOTHING
        self.total = Amount(TOTAL_MIB, TOTAL_MILLI)
        self.tracker = resources.ResourceTracker(self.total)
        self.share = Share("shop")
        self.line: list[Request] = []
        self.holders: list[Request] = []
        self.returned: list[Any] = []
        #: Grants without a wait, and who was in line: some may have been granted theirs and not know it yet.
        self.at_once: list[tuple[bool, list[Request]]] = []

    # -- what may happen ------------------------------------------------------------------------------

    @rule(
        memory=st.integers(1, 100) | st.integers(300, TOTAL_MIB),
        cpu=st.sampled_from([0, 0, 100, 250]),
        is_sync=st.booleans(),
    )
    def ask(self, memory: int, cpu: int, is_sync: bool) -> None:
        if self.tracker.is_possible(Amount(memory, cpu), is_sync=is_sync):
            request = Request(memory, cpu, is_sync)
            request.task = self.loop.start(self._hold(request))

    @rule(memory=st.integers(1, 300), is_sync=st.booleans())
    def ask_nowait(self, memory: int, is_sync: bool) -> None:
        reservation = self.tracker.reserve_nowait(Amount(memory, 0), self.share, is_sync=is_sync)
        if reservation is not None:
            self._granted(Request(memory, 0, is_sync, reservation=reservation))

    @precondition(lambda self: self.line)
    @rule(number=st.integers(0, 20))
    def give_up(self, number: int) -> None:
        request = self.line[number % len(self.line)]
        assert request.task is not None
        request.gave_up = True
        request.task.cancel()

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 20))
    def give_back(self, number: int) -> None:
        request = self.holders.pop(number % len(self.holders))
        request.reservation.release()
        self.returned.append(request.reservation)

    @precondition(lambda self: self.returned)
    @rule(number=st.integers(0, 20))
    def give_back_again(self, number: int) -> None:
        before = self.tracker.used
        self.returned[number % len(self.returned)].release()
        assert self.tracker.used == before

    @precondition(lambda self: self.holders and self.line)
    @rule(holder=st.integers(0, 20), waiter=st.integers(0, 20))
    def grant_and_give_up_in_one_tick(self, holder: int, waiter: int) -> None:
        self.give_back(holder)
        self.give_up(waiter)

    @precondition(lambda self: len(self.line) > 1)
    @rule()
    def first_in_line_gives_up(self) -> None:
        self.give_up(0)
        self.settle()

    @rule()
    def tick(self) -> None:
        self.loop.tick()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        self._check_sums()
        self._check_order()
        while self.at_once:
            is_sync, earlier = self.at_once.pop()
            self._overtook(is_sync, [request for request in earlier if request in self.line])

    # -- what must hold ------------------------------------------------------------------------------

    @invariant()
    def never_above_the_node(self) -> None:
        assert self.tracker.used.fits(self.total)
        assert self.nothing.fits(self.tracker.used)

    @invariant()
    def async_calls_stay_out_of_the_reserve(self) -> None:
        held = [request for request in self.holders if not request.is_sync]
        assert sum(request.memory_mib for request in held) <= SHARED_MIB
        assert sum(request.cpu_milli for request in held) <= SHARED_MILLI

    def _check_sums(self) -> None:
        """What is granted is what is held, in whole; a wait that was given up has left no trace."""
        expected = self._sum(self.holders)
        assert self.tracker.used == self.share.used == expected
        assert self.tracker.waiting == len(self.line)
        held_by_async = self._sum([request for request in self.holders if not request.is_sync])
        below = held_by_async.memory_mib < SHARED_MIB * 8 // 10 and held_by_async.cpu_milli < SHARED_MILLI * 8 // 10
        assert self.tracker.async_is_below_mark(self.nothing) == below

    def _check_order(self) -> None:
        """Nobody waits for what is free: a backlog of one kind does not hold up the other."""
        first = next((request for request in self.line if request.is_sync), None)
        if first is not None:
            assert not self._amount(first).fits(self.total - self.tracker.used), "a sync request waits for what is free"
        by_async = [request for request in self.line if not request.is_sync]
        if by_async and not any(request.is_sync for request in self.holders):
            room = Amount(SHARED_MIB, SHARED_MILLI) - self.tracker.used
            assert not self._amount(by_async[0]).fits(room), "an async request waits for what is free"

    def teardown(self) -> None:
        """With finite holds everybody is served; at the end all is free."""
        try:
            self.settle()
            for _ in range(len(self.line) + 1):
                while self.holders:
                    self.give_back(0)
                self.settle()
            assert not self.line, "somebody starved"
            assert self.tracker.used == self.nothing
        finally:
            self.loop.close()

    # -- its parts ------------------------------------------------------------------------------

    async def _hold(self, request: Request) -> None:
        amount = Amount(request.memory_mib, request.cpu_milli)
        request.reservation = self.tracker.reserve_nowait(amount, self.share, is_sync=request.is_sync)
        if request.reservation is not None:
            self.at_once.append((request.is_sync, list(self.line)))
            self._granted(request)
            return
        self.line.append(request)
        try:
            request.reservation = await self.tracker.reserve(amount, self.share, is_sync=request.is_sync)
            self._overtook(request.is_sync, self.line[: self.line.index(request)])
        finally:
            self.line.remove(request)
        self._granted(request)

    def _granted(self, request: Request) -> None:
        reservation = request.reservation
        assert reservation.reserve_part + reservation.shared_part == self._amount(request)
        self.holders.append(request)

    def _overtook(self, is_sync: bool, earlier: list[Request]) -> None:
        for other in earlier:
            if other.is_sync == is_sync and not other.gave_up:
                other.bypassed += 1
                assert other.bypassed <= BYPASSES, "overtaken too often"

    def _amount(self, request: Request) -> Any:
        return Amount(request.memory_mib, request.cpu_milli)

    def _sum(self, requests: list[Request]) -> Any:
        return sum((self._amount(request) for request in requests), self.nothing)


TrackerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestTracker = TrackerMachine.TestCase
