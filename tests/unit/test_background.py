"""Background tasks: who keeps them, who learns of their failures, and when they have ended."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from hearth.aio.background import Background


async def fail() -> None:
    raise ValueError("unexpected")


async def test_a_task_that_nobody_holds_is_not_collected() -> None:
    background, ended = Background(), []

    async def work() -> None:
        waiting = asyncio.get_running_loop().create_future()
        held.append(weakref.ref(waiting))
        await waiting
        ended.append(True)

    held: list[weakref.ref[asyncio.Future[None]]] = []
    background.run(work())
    await asyncio.sleep(0)
    gc.collect()
    waiting = held[0]()
    assert waiting is not None
    waiting.set_result(None)
    await background.join()
    assert ended == [True]


async def test_an_unexpected_exception_goes_to_the_owner_at_once() -> None:
    errors: list[BaseException] = []
    background = Background(errors.append)
    background.run(fail())
    for _ in range(3):
        await asyncio.sleep(0)
    assert [str(error) for error in errors] == ["unexpected"]


async def test_an_owner_that_does_not_listen_gets_an_unexpected_exception_when_it_joins() -> None:
    background = Background()
    background.run(fail())
    with pytest.raises(ValueError, match="unexpected"):
        await background.join()
    await background.join()


async def test_the_exception_of_an_awaited_task_is_for_those_who_await_it() -> None:
    errors: list[BaseException] = []
    background = Background(errors.append)
    with pytest.raises(ValueError, match="unexpected"):
        await background.start(fail())
    await background.join()
    assert errors == []


async def test_joining_waits_for_tasks_that_tasks_start() -> None:
    background, steps = Background(), []

    async def first() -> None:
        await asyncio.sleep(0)
        background.run(second())

    async def second() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        steps.append("second")

    background.run(first())
    await background.join()
    assert steps == ["second"]


async def test_an_owner_that_cannot_wait_stops_its_tasks() -> None:
    background = Background()
    task = background.run(asyncio.sleep(3600))
    background.stop()
    await background.join()
    assert task.cancelled()


async def test_cancelling_waits_for_the_clean_up_and_is_no_error() -> None:
    background, steps, errors = Background(), [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            steps.append("clean")

    tasks = [background.run(work()), background.start(work())]
    await asyncio.sleep(0)
    await background.cancel()
    assert steps == ["clean", "clean"]
    assert all(task.cancelled() for task in tasks)
    assert errors == []
