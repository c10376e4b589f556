"""Reservations never exceed the node, and none is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.agent.resources import NeverFits, ResourceTracker, Shortage
from hearth.agent.shares import Share
from hearth.models.function import NOTHING, Amount

TOTAL = Amount(1000, 1000)
APP = Share("shop")
STEP = st.one_of(
    st.tuples(st.just("reserve"), st.integers(1, 1000), st.integers(0, 1000), st.booleans()),
    st.tuples(st.just("release"), st.integers(0, 20)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("tick")),
)


@settings(deadline=None, max_examples=150)
@given(steps=st.lists(STEP, max_size=40))
def test_what_is_granted_never_exceeds_the_node_and_comes_back_whole(steps: list[Any]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[Any]) -> None:
    tracker = ResourceTracker(TOTAL)
    tasks: list[asyncio.Task[Any]] = []
    for step in steps:
        if step[0] == "reserve":
            if tracker.is_possible(Amount(step[1], step[2]), is_sync=step[3]):
                tasks.append(asyncio.ensure_future(tracker.reserve(Amount(step[1], step[2]), APP, is_sync=step[3])))
        elif step[0] == "tick":
            await asyncio.sleep(0)
        elif tasks:
            task = tasks[step[1] % len(tasks)]
            if step[0] == "cancel":
                task.cancel()
            elif task.done() and not task.cancelled():
                task.result().release()
        assert tracker.used.fits(TOTAL)
        assert NOTHING.fits(tracker.used)
    while True:
        await asyncio.sleep(0)
        granted = [task for task in tasks if task.done() and not task.cancelled()]
        for task in granted:
            task.result().release()
        tasks = [task for task in tasks if not task.done()]
        if not granted and not tasks:
            break
    await asyncio.sleep(0)
    assert (tracker.used, tracker.waiting) == (NOTHING, 0)


async def test_what_can_never_fit_is_refused() -> None:
    tracker = ResourceTracker(TOTAL)
    with pytest.raises(NeverFits):
        await tracker.reserve(Amount(1001, 0), APP, is_sync=True)
    with pytest.raises(NeverFits):
        await tracker.reserve(Amount(801, 0), APP, is_sync=False)  # the sync reserve is not for async calls


async def test_async_calls_leave_the_reserve_to_sync_calls() -> None:
    tracker = ResourceTracker(TOTAL)
    assert tracker.reserve_nowait(Amount(800, 0), APP, is_sync=False) is not None
    assert tracker.reserve_nowait(Amount(1, 0), APP, is_sync=False) is None
    assert tracker.reserve_nowait(Amount(200, 0), APP, is_sync=True) is not None


async def test_a_large_request_is_not_overtaken() -> None:
    tracker = ResourceTracker(TOTAL)
    held = await tracker.reserve(Amount(600, 0), APP, is_sync=True)
    large = asyncio.ensure_future(tracker.reserve(Amount(900, 0), APP, is_sync=True))
    await asyncio.sleep(0)
    assert tracker.reserve_nowait(Amount(100, 0), APP, is_sync=True) is None
    held.release()
    (await large).release()
    assert tracker.used == NOTHING


async def test_the_shortage_is_that_of_the_requests_which_are_next() -> None:
    tracker = ResourceTracker(TOTAL)
    assert tracker.shortage() is None
    held = await tracker.reserve(Amount(900, 0), APP, is_sync=True)
    wants = [(300, True, b"a"), (200, True, b"b"), (500, False, b"c")]
    tasks = [
        asyncio.ensure_future(tracker.reserve(Amount(mib, 0), APP, is_sync=sync, key=key)) for mib, sync, key in wants
    ]
    await asyncio.sleep(0)
    assert tracker.shortage() == Shortage(
        Amount(200, 0), Amount(400, 0), True, frozenset({b"a", b"b"}), Amount(300, 0), APP
    )
    for task in tasks[:2]:
        task.cancel()
    await asyncio.sleep(0)
    assert tracker.shortage() == Shortage(Amount(400, 0), Amount(400, 0), False, frozenset({b"c"}), Amount(500, 0), APP)
    held.release()
    (await tasks[2]).release()
    assert tracker.used == NOTHING
