"""Slots are conserved, whoever gives up when."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.agent.slots import SlotQueue
from hearth.models.errors import ServerBusy


class Hot:
    """A container that only counts its leases."""

    served = 0

    def __init__(self, queue: SlotQueue[Hot]) -> None:
        self._queue = queue
        self.leased = False

    def lease(self) -> None:
        assert not self.leased, "leased to two"
        self.leased = True

    def give_back(self, *, clean: bool, used: bool) -> None:
        assert self.leased, "given back twice"
        self.leased = False
        self._queue.offer(self)


STEP = st.tuples(st.sampled_from(["acquire", "cancel", "release", "tick"]), st.integers(0, 30))


@settings(deadline=None, max_examples=200)
@given(containers=st.integers(1, 4), steps=st.lists(STEP, max_size=60))
def test_a_slot_is_never_lost_nor_leased_twice(containers: int, steps: list[tuple[str, int]]) -> None:
    asyncio.run(_play(containers, steps))


async def _play(containers: int, steps: list[tuple[str, int]]) -> None:
    queue: SlotQueue[Hot] = SlotQueue()
    for _ in range(containers):
        queue.offer(Hot(queue))
    calls: list[asyncio.Task[Hot]] = []
    for action, number in steps:
        if action == "acquire":
            calls.append(asyncio.ensure_future(queue.acquire()))
        elif action == "tick":
            await asyncio.sleep(0)
        elif calls:
            call = calls[number % len(calls)]
            if action == "cancel":
                call.cancel()
            elif call.done() and not call.cancelled():
                calls.remove(call)
                call.result().give_back(clean=True, used=True)
        assert not (queue.free and queue.waiters)
    for _ in range(len(calls) + 1):
        await asyncio.sleep(0)
        for call in [call for call in calls if call.done()]:
            calls.remove(call)
            if not call.cancelled():
                call.result().give_back(clean=True, used=True)
    await asyncio.sleep(0)
    assert (len(queue.free), len(queue.waiters), calls) == (containers, 0, [])


async def test_the_newest_free_slot_is_taken_first() -> None:
    queue: SlotQueue[Hot] = SlotQueue()
    old, new = Hot(queue), Hot(queue)
    queue.offer(old)
    queue.offer(new)
    assert queue.acquire_nowait() is not None
    assert (old.leased, new.leased) == (False, True)


async def test_a_call_that_gives_up_in_the_tick_in_which_its_wait_fails_is_cancelled() -> None:
    queue: SlotQueue[Hot] = SlotQueue()
    waiting = asyncio.ensure_future(queue.acquire())
    await asyncio.sleep(0)
    queue.fail_one(ServerBusy())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_wait_that_failed_is_freed_at_once() -> None:
    """Its error holds its frames: if they held it as well, all that they hold would stay until a collection."""
    queue: SlotQueue[Hot] = SlotQueue()

    async def ask() -> weakref.ref[ServerBusy]:
        try:
            await queue.acquire()
        except ServerBusy as exc:
            return weakref.ref(exc)
        raise AssertionError("no slot was offered")

    waiting = asyncio.ensure_future(ask())
    await asyncio.sleep(0)
    gc.disable()
    try:
        queue.fail_all(ServerBusy())
        error = await waiting
        assert error() is None
    finally:
        gc.enable()


async def test_a_slot_is_announced_until_it_is_offered_or_withdrawn() -> None:
    queue: SlotQueue[Hot] = SlotQueue()
    offered, withdrawn = Hot(queue), Hot(queue)
    queue.announce(offered)
    queue.announce(withdrawn)
    queue.offer(offered)
    assert queue.announced == {withdrawn}
    assert not queue.withdraw(withdrawn)
    assert queue.announced == set()
    assert queue.free == [offered]


async def test_a_container_that_goes_on_with_a_waiting_call_after_another_one_counts_as_turnover() -> None:
    queue: SlotQueue[Hot] = SlotQueue()
    for served, turnover in ((0, 0), (1, 1), (2, 2)):
        waiting = asyncio.ensure_future(queue.acquire())
        await asyncio.sleep(0)
        hot = Hot(queue)
        hot.served = served
        queue.offer(hot)
        assert await waiting is hot
        assert queue.turnover == turnover
    queue.offer(Hot(queue))
    assert queue.turnover == 2, "no call waited"


@given(order=st.permutations([0, 0, 0, 1, 1, 1]))
def test_preferred_slots_are_taken_next_in_whatever_order_they_were_given_back(order: list[int]) -> None:
    queue: SlotQueue[Hot] = SlotQueue()
    slots = [(number, Hot(queue)) for number in order]
    for _, slot in slots:
        queue.offer(slot)
    preferred = {slot for number, slot in slots if number == 1}
    queue.prefer(preferred)
    assert {queue.acquire_nowait() for _ in preferred} == preferred
