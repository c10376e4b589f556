"""Slots under every order of offering, taking, giving up and withdrawing (agent specification 14: 4, 7, 9)."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.mutants import assert_noticed, mutant
from tests.support.steps import SteppedLoop

from hearth.agent import slots

CONTAINERS = 4


class NoSlot(Exception):
    """Why a call's wait was ended."""


class Hot:
    """A container that knows whether it is offered or leased; ``idle`` is what the queue should hold, oldest first."""

    served = 0
    opening = b""

    def __init__(self, queue: Any, idle: list[Hot], make_slot: Any) -> None:
        self._queue = queue
        self._idle = idle
        self._make_slot = make_slot
        self.leased = False
        self.container: Any = self

    def offer(self) -> None:
        self._queue.offer(self)
        if not self.leased:
            self._idle.append(self)

    def lease(self) -> Any:
        assert not self.leased, "leased to two"
        self.leased = True
        if self in self._idle:
            self._idle.remove(self)
        return self._make_slot(self)

    def give_back(self, *, clean: bool) -> None:
        assert self.leased, "given back twice"
        self.leased = False
        if clean:
            self.offer()

    def attend(self, call: Any) -> None: ...


class Call:
    """One call that wants a slot."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.gave_up = False
        self.error: NoSlot | None = None


class QueueMachine(RuleBasedStateMachine):
    """Anybody may do anything between two iterations of the loop."""

    subject: types.ModuleType = slots

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.queue = self.subject.SlotQueue()
        self.idle: list[Hot] = []
        self.containers: list[Hot] = []
        self.line: list[Call] = []
        self.held: list[Any] = []
        self.released: list[Any] = []

    # -- what may happen ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.containers) < CONTAINERS)
    @rule()
    def start_container(self) -> None:
        hot = Hot(self.queue, self.idle, self.subject.Slot)
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
        slot = self.held.pop(number % len(self.held))
        slot.release(clean=clean)
        self.released.append(slot)
        if not clean:
            self.containers.remove(slot.container)

    @precondition(lambda self: self.held and self.line)
    @rule(slot=st.integers(0, 20), waiter=st.integers(0, 20))
    def hand_over_and_give_up_in_one_tick(self, slot: int, waiter: int) -> None:
        self.release(slot, clean=True)
        self.give_up(waiter)

    @precondition(lambda self: self.released)
    @rule(number=st.integers(0, 20))
    def release_again(self, number: int) -> None:
        with pytest.raises(RuntimeError):
            self.released[number % len(self.released)].release(clean=True)

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
        error = NoSlot()
        self.queue.fail_one(error)
        self.settle()
        assert [call.error for call in waiting] == [error, *[None] * (len(waiting) - 1)][: len(waiting)]

    @rule()
    def fail_all(self) -> None:
        self.settle()
        waiting, late, error = list(self.line), Call(), NoSlot()
        self.queue.fail_all(error)
        late.task = self.loop.start(self._call(late))
        self.settle()
        assert [call.error for call in waiting] == [error] * len(waiting)
        assert late.error is None, "told of a failure of before its time"

    @rule()
    def tick(self) -> None:
        self.loop.tick()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        assert self.queue.waiting == len(self.line), "a call that gave up still waits"
        assert sum(hot.leased for hot in self.containers) == len(self.held), "a slot is lost"

    # -- what must hold ------------------------------------------------------------------------------

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        assert not (self.queue.idle and self.queue.waiting)

    @invariant()
    def the_queue_holds_what_is_offered(self) -> None:
        assert self.queue.idle == len(self.idle)

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
            assert self.queue.idle == len(self.containers)
        finally:
            self.loop.close()

    # -- its parts ------------------------------------------------------------------------------

    def _take_free(self) -> bool:
        newest = self.idle[-1] if self.idle else None
        slot = self.queue.acquire_nowait()
        if slot is None:
            assert newest is None, "a free slot was not taken"
            return False
        assert slot.container is newest, "not the newest"
        self.held.append(slot)
        return True

    async def _call(self, call: Call) -> None:
        if self._take_free():
            return
        self.line.append(call)
        try:
            slot = await self.queue.acquire()
            self._served(call)
            self.held.append(slot)
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

_HAND_OVER = """waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                self.turnover += hot.served > 0
                waiter.set_result"""

GUARDS = {
    "a slot is lost when its wait is given up in the same tick": ("waiter.result().release(clean=True)", "pass"),
    "the newest waiter is served first": (_HAND_OVER, _HAND_OVER.replace("False", "True")),
    "a slot is handed to a call that gave up": (_HAND_OVER, _HAND_OVER.replace("not waiter.done()", "True")),
    "the oldest slot is taken first": ("popitem(last=True)", "popitem(last=False)"),
    "a call that gave up stays in line": ("self._waiters.pop(waiter, None)", "pass"),
    "a withdrawn slot is still offered": ("del self._idle[hot]", "pass"),
    "withdrawing succeeds though the slot was taken": ("return False\n        del self._idle[hot]", "return True"),
    "a slot is released twice": ('raise RuntimeError("a slot is released once")', "pass"),
    "only one call hears of a failure": ("for _ in range(len(self._waiters)):", "for _ in range(1):"),
    "waiting calls are not looked at": (
        "while self._waiters:\n            " + _HAND_OVER,
        "while False:\n            " + _HAND_OVER,
    ),
}


@pytest.mark.parametrize("removed", GUARDS)
def test_a_removed_guard_is_noticed(removed: str) -> None:
    class Mutated(QueueMachine):
        subject = mutant(slots, *GUARDS[removed])

    assert_noticed(Mutated)
