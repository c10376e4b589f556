"""Background tasks: who keeps them, who learns of their failures, and when they have ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from hearth.aio.background import Background, Workers


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


async def test_a_worker_takes_one_piece_of_work_after_another() -> None:
    workers, tasks = Workers(), []

    async def work() -> None:
        tasks.append(asyncio.current_task())

    for _ in range(3):
        workers.do(work())
        await until_idle()
    assert len(set(tasks)) == 1
    workers.do(work())
    workers.do(work())
    await until_idle()
    assert len(tasks) == 5
    assert len(set(tasks)) == 2, "work that starts at once runs at once"
    await workers.join()


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["failed", "cancelled"])
async def test_a_task_whose_work_did_not_end_well_is_not_used_again(is_cancelled: bool) -> None:
    workers, tasks = Workers(), []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if is_cancelled:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        else:
            raise ValueError("unexpected")

    for _ in range(2):
        workers.do(work())
        await until_idle()
    assert len(set(tasks)) == 2
    await workers.join()


async def test_workers_end_when_they_are_joined_and_finish_their_work_first() -> None:
    workers, ended = Workers(), []
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.append(True)

    async def nothing() -> None: ...

    workers.do(nothing())
    await until_idle()
    workers.do(work())
    workers.do(work())
    joining = asyncio.ensure_future(workers.join())
    await until_idle()
    assert not joining.done()
    go_on.set()
    await joining
    assert ended == [True, True]


async def test_work_that_is_handed_over_as_all_work_is_cancelled_does_not_run() -> None:
    workers, ran = Workers(), []

    async def work() -> None:
        ran.append(True)

    workers.do(work())
    await until_idle()
    workers.do(work())
    await workers.cancel()
    assert ran == [True]


async def until_idle() -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(10):
        await asyncio.sleep(0)
