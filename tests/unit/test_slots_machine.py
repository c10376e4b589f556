"""Slots under every order of offering, taking, giving up and withdrawing (agent specification 14: 4, 7, 9)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.steps import SteppedLoop

from hearth.agent import slots

CONTAINERS = 4


class NoSlot(Exception):
    """Why a call's wait was ended: a number, the same for all that were ended by one failure."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoSlot) and self.args == other.args

    __hash__ = Exception.__hash__


class Hot:
    """A container that knows whether it is offered or leased; ``idle`` is what the queue should hold, oldest first."""

    served = 0

    def __init__(self, queue: Any, idle: list[Hot]) -> None:
        self._queue = queue
        self._idle = idle
        self.leased = False

    def offer(self) -> None:
        self._queue.offer(self)
        if not self.leased:
            self._idle.append(self)

    def lease(self) -> None:
        assert not self.leased, "leased to two"
        self.leased = True
        if self in self._idle:
            self._idle.remove(self)

    def give_back(self, *, clean: bool, used: bool) -> None:
        assert self.leased, "given back twice"
        self.leased = False
        if clean:
            self.offer()


class Call:
    """One call that wants a slot."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.gave_up = False
        self.error: NoSlot | None = None


class QueueMachine(RuleBasedStateMachine):
    """Anybody may do anything between two iterations of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.queue: Any = slots.SlotQueue()
        self.idle: list[Hot] = []
        self.containers: list[Hot] = []
        self.line: list[Call] = []
        self.held: list[Any] = []
        self.failures = 0

    # -- what may happen ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.containers) < CONTAINERS)
    @rule()
    def start_container(self) -> None:
        hot = Hot(self.queue, self.idle)
        self.containers.append(hot)
        hot.offer()

    @rule()
    def call(self) -> None:
        call = Call()
        call.task = self.loop.start(self._call(call))

    @rule()
    def call_nowait(self) -> None:
        self._take_free()

    @precondition(lambda self: self.line)
    @rule(number=st.integers(0, 20))
    def give_up(self, number: int) -> None:
        self._give_up(self.line[number % len(self.line)])

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 20), clean=st.sampled_from([True, True, False]))
    def release(self, number: int, clean: bool) -> None:
        hot = self.held.pop(number % len(self.held))
        hot.give_back(clean=clean, used=True)
        if not clean:
            self.containers.remove(hot)

    @precondition(lambda self: self.held and self.line)
    @rule(slot=st.integers(0, 20), waiter=st.integers(0, 20))
    def hand_over_and_give_up_in_one_tick(self, slot: int, waiter: int) -> None:
        self.release(slot, clean=True)
        self.give_up(waiter)

    @precondition(lambda self: self.containers)
    @rule(number=st.integers(0, 20))
    def withdraw(self, number: int) -> None:
        hot = self.containers[number % len(self.containers)]
        offered = hot in self.idle
        assert self.queue.withdraw(hot) == offered, "withdrawn and taken"
        if offered:
            self.idle.remove(hot)
            self.containers.remove(hot)

    @rule(first_gives_up=st.booleans())
    def fail_one(self, first_gives_up: bool) -> None:
        self.settle()
        if first_gives_up and self.line:
            self._give_up(self.line[0])
        waiting = [call for call in self.line if not call.gave_up]
        error = self._no_slot()
        self.queue.fail_one(error)
        self.settle()
        assert [call.error for call in waiting] == [error, *[None] * (len(waiting) - 1)][: len(waiting)]

    def _no_slot(self) -> NoSlot:
        self.failures += 1
        return NoSlot(self.failures)

    @rule()
    def fail_all(self) -> None:
        self.settle()
        waiting, late, error = list(self.line), Call(), self._no_slot()
        self.queue.fail_all(error)
        late.task = self.loop.start(self._call(late))
        self.settle()
        assert [call.error for call in waiting] == [error] * len(waiting)
        assert len({id(call.error) for call in waiting}) == len(waiting), "two calls share an error and its frames"
        assert late.error is None, "told of a failure of before its time"

    @rule()
    def tick(self) -> None:
        self.loop.tick()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        assert len(self.queue.waiters) == len(self.line), "a call that gave up still waits"
        assert sum(hot.leased for hot in self.containers) == len(self.held), "a slot is lost"

    # -- what must hold ------------------------------------------------------------------------------

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        assert not (self.queue.free and self.queue.waiters)

    @invariant()
    def the_queue_holds_what_is_offered(self) -> None:
        assert self.queue.free == self.idle

    def teardown(self) -> None:
        """With finite calls everybody is served; at the end all slots are free."""
        try:
            self.start_container()
            self.settle()
            for _ in range(len(self.line) + 1):
                while self.held:
                    self.release(0, clean=True)
                self.settle()
            assert not self.line, "somebody starved"
            assert len(self.queue.free) == len(self.containers)
        finally:
            self.loop.close()

    # -- its parts ------------------------------------------------------------------------------

    def _take_free(self) -> bool:
        newest = self.idle[-1] if self.idle else None
        hot = self.queue.acquire_nowait()
        if hot is None:
            assert newest is None, "a free slot was not taken"
            return False
        assert cast(Any, hot) is newest, "not the newest"
        self.held.append(hot)
        return True

    async def _call(self, call: Call) -> None:
        if self._take_free():
            return
        self.line.append(call)
        try:
            hot = await self.queue.acquire()
            self._served(call)
            self.held.append(hot)
        except NoSlot as error:
            self._served(call)
            call.error = error
        finally:
            self.line.remove(call)

    def _served(self, call: Call) -> None:
        ahead = [other for other in self.line[: self.line.index(call)] if not other.gave_up]
        assert not ahead, "overtook a call that has waited longer"

    def _give_up(self, call: Call) -> None:
        assert call.task is not None
        call.gave_up = True
        call.task.cancel()


QueueMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase
