"""Slots are conserved, whoever gives up when."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.agent.launcher import Snapshot, back_off_s, containers_spare, containers_wanted
from hearth.agent.slots import Slot, SlotQueue


class Hot:
    """A container that only counts its leases."""

    served = 0
    opening = b""
    container: Any = None

    def __init__(self, queue: SlotQueue) -> None:
        self._queue = queue
        self.leased = False

    def lease(self) -> Slot:
        assert not self.leased, "leased to two"
        self.leased = True
        return Slot(self)

    def give_back(self, *, clean: bool) -> None:
        self.leased = False
        self._queue.offer(self)

    def attend(self, call: Any) -> None: ...


STEP = st.tuples(st.sampled_from(["acquire", "cancel", "release", "tick"]), st.integers(0, 30))


@settings(deadline=None, max_examples=200)
@given(containers=st.integers(1, 4), steps=st.lists(STEP, max_size=60))
def test_a_slot_is_never_lost_nor_leased_twice(containers: int, steps: list[tuple[str, int]]) -> None:
    asyncio.run(_play(containers, steps))


async def _play(containers: int, steps: list[tuple[str, int]]) -> None:
    queue = SlotQueue()
    for _ in range(containers):
        queue.offer(Hot(queue))
    calls: list[asyncio.Task[Slot]] = []
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
                call.result().release(clean=True)
        assert not (queue.idle and queue.waiting)
    for _ in range(len(calls) + 1):
        await asyncio.sleep(0)
        for call in [call for call in calls if call.done()]:
            calls.remove(call)
            if not call.cancelled():
                call.result().release(clean=True)
    await asyncio.sleep(0)
    assert (queue.idle, queue.waiting, calls) == (containers, 0, [])


async def test_the_newest_free_slot_is_taken_first() -> None:
    queue = SlotQueue()
    old, new = Hot(queue), Hot(queue)
    queue.offer(old)
    queue.offer(new)
    assert queue.acquire_nowait() is not None
    assert (old.leased, new.leased) == (False, True)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_never_more_starts_than_calls_that_nobody_serves(
    waiting: int, idle: int, starting: int, reserving: int
) -> None:
    now = Snapshot(waiting, idle, starting, reserving)
    wanted, spare = containers_wanted(now), containers_spare(now)
    assert wanted == 0 or spare == 0
    assert wanted + starting + reserving - spare <= max(waiting - idle, starting, 0) + (
        0 if wanted else reserving - spare
    )
    assert 0 <= spare <= reserving
    if waiting > idle:
        assert wanted + starting + reserving >= 1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 99))
def test_no_more_are_made_than_there_is_room_for(
    waiting: int, idle: int, starting: int, reserving: int, room: int
) -> None:
    now, free = Snapshot(waiting, idle, starting, reserving, room), Snapshot(waiting, idle, starting, reserving)
    wanted, spare = containers_wanted(now), containers_spare(now)
    assert wanted <= containers_wanted(free)
    assert wanted + starting + reserving - spare <= max(room, starting + (0 if wanted else reserving - spare))
    if starting + reserving >= room:
        assert wanted == 0
        assert spare == max(containers_spare(free), min(reserving, starting + reserving - room))


def test_back_off_doubles_up_to_its_limit() -> None:
    assert [back_off_s(n) for n in (0, 1, 2, 3, 20)] == [0.0, 0.025, 0.05, 0.1, 3.2]
