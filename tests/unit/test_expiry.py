"""Limits on waiting that share a timer."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.clock import FakeClock

from hearth.aio.deadlines import Expiries, TimeLimit


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=30))
def test_each_is_called_once_at_its_time_unless_it_was_discarded(steps: list[tuple[float, bool]]) -> None:
    async def run() -> None:
        clock, called = FakeClock(), dict[int, float]()
        line = Expiries(clock, 10.0)
        expected, kept = dict[int, float](), list[int]()
        for wait, discards in steps:
            number = len(expected)
            key = line.add(lambda number=number: called.__setitem__(number, clock.monotonic()))  # type: ignore[misc]
            expected[number] = clock.monotonic() + 10.0
            kept.append(key)
            clock.advance(wait)
            if discards and number not in called:
                line.discard(key)
                expected[number] = -1.0
            assert clock.pending <= 1
        clock.advance(10.0)
        assert called == {number: when for number, when in expected.items() if when >= 0}
        assert clock.pending == 0

    asyncio.run(run())


async def test_nobody_is_called_after_the_end() -> None:
    clock, called = FakeClock(), list[str]()
    line = Expiries(clock, 1.0)
    line.add(lambda: called.append("one"))
    line.close()
    clock.advance(2.0)
    assert (called, clock.pending) == ([], 0)


async def test_one_that_expires_may_discard_the_next() -> None:
    clock, called = FakeClock(), list[str]()
    line = Expiries(clock, 1.0)
    line.add(lambda: line.discard(second))
    second = line.add(lambda: called.append("two"))
    clock.advance(2.0)
    assert called == []


async def test_all_can_expire_at_once_and_only_once() -> None:
    clock, called = FakeClock(), list[str]()
    line = Expiries(clock, 1.0)
    line.add(lambda: called.append("one"))
    line.add(lambda: line.discard(third))
    third = line.add(lambda: called.append("three"))
    line.expire_all()
    assert called == ["one"]
    clock.advance(2.0)
    assert (called, clock.pending) == (["one"], 0)


async def limited(line: Expiries, reached: asyncio.Event) -> str:
    task = asyncio.current_task()
    assert task is not None
    try:
        with TimeLimit(line, task):
            reached.set()
            await asyncio.Event().wait()
    except TimeoutError:
        assert task.cancelling() == 0
        return "late"
    return "never"


async def test_a_time_limit_ends_what_waits_within_it() -> None:
    clock, reached = FakeClock(), asyncio.Event()
    task = asyncio.ensure_future(limited(Expiries(clock, 1.0), reached))
    await reached.wait()
    clock.advance(0.9)
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(0.2)
    assert await task == "late"


@pytest.mark.parametrize("expires", [False, True])
async def test_who_is_cancelled_stays_cancelled_also_in_the_tick_of_the_limit(expires: bool) -> None:
    clock, reached = FakeClock(), asyncio.Event()
    task = asyncio.ensure_future(limited(Expiries(clock, 1.0), reached))
    await reached.wait()
    task.cancel()
    if expires:
        clock.advance(2.0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_ends_in_time_is_left_alone() -> None:
    clock = FakeClock()
    task = asyncio.current_task()
    assert task is not None
    line = Expiries(clock, 1.0)
    with TimeLimit(line, task):
        pass
    clock.advance(2.0)
    await asyncio.sleep(0)
    assert task.cancelling() == 0
