"""A call is cancelled at its 1st, 2nd, ... n-th suspension: whatever it held is back, and the next call works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.agent import OBEDIENT, Bench, Body, bench, settle
from tests.support.sweep import CancelledAt
from tests.support.virtual_time import run

from hearth.agent.call import ActiveCall
from hearth.agent.slots import SlotQueue
from hearth.drivers.base import StartFailed
from hearth.models.errors import ApiError, HearthError, ServerBusy
from hearth.testing.script import Script, Step

Prepare = Callable[[Bench], Awaitable[ActiveCall]]


async def first_call(on: Bench) -> ActiveCall:
    return on.call(on.function(image="slow"), echo="x", sleep=0.5)


async def warm_call(on: Bench) -> ActiveCall:
    function = on.function(image="slow")
    await on.ask(function)
    return on.call(function, echo="x", sleep=0.5)


async def cold_call(on: Bench) -> ActiveCall:
    return on.call(on.function(image="cat", format="default"), echo="x")


async def call_that_needs_an_eviction(on: Bench) -> ActiveCall:
    await on.ask(on.function("/idle", memory=900))
    return on.call(on.function("/new", image="slow", memory=900), echo="x")


async def call_that_waits_for_a_busy_container(on: Bench) -> ActiveCall:
    function = on.function(image="slow", memory=900, timeout=60)
    on.start(function, sleep=2)
    await settle()
    return on.call(function, echo="x")


async def call_with_a_body_in_pieces(on: Bench) -> ActiveCall:
    data = json.dumps({"echo": "x" * 200_000}).encode()
    body = Body(length=len(data), open_end=True)

    async def send() -> None:
        for start in range(0, len(data), 50_000):
            body.put(data[start : start + 50_000])
            await asyncio.sleep(0.1)
        body.put(b"")

    on.tasks.append(asyncio.ensure_future(send()))
    return on.call(on.function(image="slow", timeout=60), body=body)


async def call_whose_start_fails(on: Bench) -> ActiveCall:
    return on.call(on.function(image="shaky"), echo="x")


async def call_that_finds_its_container_dead(on: Bench) -> ActiveCall:
    function = on.function(image="slow")
    await on.ask(function)
    (container,) = on.driver.containers.values()
    container.say(b"surplus")
    return on.call(function, echo="x")


SITUATIONS = [
    first_call,
    warm_call,
    cold_call,
    call_that_needs_an_eviction,
    call_that_waits_for_a_busy_container,
    call_with_a_body_in_pieces,
    call_whose_start_fails,
    call_that_finds_its_container_dead,
]


def images() -> dict[str, Any]:
    slow: dict[str, Any] = {"create": Step(delay_s=0.1), "start": Step(delay_s=0.1), "remove": Step(delay_s=0.1)}

    async def cat(stdin: Any, stdout: Any, stderr: Any) -> int:
        while data := await stdin.read():
            await stdout.write(data)
            await asyncio.sleep(0.1)
        return 0

    return {
        "slow": Script(main=OBEDIENT, **slow),
        "cat": Script(main=cat, **slow),
        "shaky": Script(main=OBEDIENT, start=Step(delay_s=0.1, error=StartFailed("trouble"), failures=1)),
    }


@pytest.mark.parametrize("late", [False, True], ids=["waiting", "in the tick of the hand-over"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_nothing_is_lost_wherever_a_call_is_cancelled(situation: Prepare, late: bool) -> None:
    nth = 1
    while run(_cancelled(situation, nth, late=late)):
        nth += 1
    assert nth > 2  # it did wait somewhere


async def _cancelled(situation: Prepare, nth: int, *, late: bool) -> bool:
    """Cancel at the n-th suspension; false if there are not so many."""
    async with bench(images=images()) as on:
        call = await situation(on)
        waiting = CancelledAt(on.agent.submit(call), nth, late=late)

        async def victim() -> None:
            await waiting

        task = asyncio.ensure_future(victim())
        await asyncio.wait([task])
        was_cancelled = task.cancelled()
        if not was_cancelled:
            assert task.exception() is None or isinstance(task.exception(), HearthError | ApiError)
        await settle()
        # Whoever comes next is served as if nothing had been, by this function and by others.
        assert await on.ask(on.function("/next", memory=900, timeout=100), echo="next") == "next"
        records = [one for one in on.records.ended if one.call.id == call.record.id]
        assert len(records) <= 1
        await asyncio.sleep(5)
        total = on.agent.stats.total
        assert (total.queue, total.running) == (0, 0)
        return waiting.suspensions >= nth


def test_a_hand_over_without_its_guard_is_noticed() -> None:
    """A slot that is given to a call in the tick in which it gives up must not be lost: the sweep sees it if it is."""

    async def acquire(self: SlotQueue[Any], since: float) -> Any:
        if (hot := self.acquire_nowait()) is not None:
            return hot
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiters[waiter] = since
        try:
            return await waiter
        finally:
            self.waiters.pop(waiter, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlotQueue, "acquire", acquire)
        with pytest.raises((TimeoutError, AssertionError)):
            test_nothing_is_lost_wherever_a_call_is_cancelled(first_call, late=True)


def test_a_container_that_is_not_needed_any_more_before_its_first_step_is_not_waited_for() -> None:
    """Its task is cancelled before it has begun; if it counted on, its function would never start another one."""

    async def scenario() -> None:
        async with bench() as on:
            function = on.function()
            assert await on.ask(function, echo="x") == "x"
            (launcher,) = on.agent.pool.launchers.values()
            (warm,) = launcher.containers
            taken = await launcher.acquire(0.0)
            waiting = asyncio.ensure_future(launcher.acquire(0.0))
            await asyncio.sleep(0)  # it has come to wait: in the next tick a container is started for it

            def turn() -> None:
                assert len(launcher.containers) == 2
                launcher.queue.fail_all(ServerBusy())
                launcher.evaluate()  # as for the end of another container

            asyncio.get_running_loop().call_soon(turn)
            with pytest.raises(ServerBusy):
                await waiting
            await settle()
            assert on.agent.pool.containers["wait"] == 0
            assert list(launcher.containers) == [warm]
            taken.give_back(clean=False, used=True)
            await settle()
            assert await on.ask(function, echo="y") == "y"

    run(scenario())
