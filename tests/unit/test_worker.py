"""A thread that does one thing after another."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from hearth.aio.worker_thread import WorkThread


async def test_what_is_asked_for_is_done_in_order_in_one_thread() -> None:
    thread, done = WorkThread("one"), list[tuple[int, int]]()

    def work(number: int) -> int:
        done.append((number, threading.get_ident()))
        return number * number

    assert await asyncio.gather(*[thread.do(functools.partial(work, n)) for n in range(100)]) == [
        n * n for n in range(100)
    ]
    thread.end()
    assert [number for number, _ in done] == list(range(100))
    assert len({ident for _, ident in done}) == 1
    assert threading.get_ident() not in {ident for _, ident in done}


async def test_an_error_is_told_and_the_next_work_is_done() -> None:
    thread = WorkThread("errors")
    with pytest.raises(ZeroDivisionError):
        await thread.do(lambda: 1 // 0)
    assert await thread.do(lambda: 1) == 1
    thread.end()


async def test_who_gives_up_does_not_stop_it() -> None:
    thread, goes_on, done = WorkThread("patient"), threading.Event(), list[str]()
    waiting = asyncio.ensure_future(thread.do(lambda: (goes_on.wait(60), done.append("first"))))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    goes_on.set()
    await thread.do(lambda: done.append("second"))
    assert done == ["first", "second"]
    thread.end()


def test_its_end_waits_for_what_was_asked_for() -> None:
    goes_on, done = threading.Event(), list[str]()
    thread = WorkThread("ending")

    async def ask() -> None:
        waiting = asyncio.ensure_future(thread.do(lambda: (goes_on.wait(60), done.append("done"))))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(ask())
    goes_on.set()
    thread.end()  # the loop is gone: nobody is told
    assert done == ["done"]


def test_one_that_never_worked_ends() -> None:
    WorkThread("idle").end()
