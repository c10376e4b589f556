"""Long pieces of work of many tasks are spread over the turns of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import time

from hearth.aio.loop_share import BUDGET_S, loop_share


def work(seconds: float) -> None:
    """Keep a processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Turns:
    """Counts the turns of the loop, and notes who worked in which."""

    def __init__(self) -> None:
        self.number = 0
        self.worked: list[tuple[int, int]] = []
        self._loop = asyncio.get_running_loop()
        self._next()

    def _next(self) -> None:
        self.number += 1
        self._handle = self._loop.call_soon(self._next)

    def stop(self) -> None:
        self._handle.cancel()

    async def piece(self, name: int, seconds: float = BUDGET_S) -> None:
        share = loop_share()
        await share.turn()
        with share:
            self.worked.append((self.number, name))
            work(seconds)


async def test_long_pieces_have_a_turn_each_in_order_of_arrival() -> None:
    turns = Turns()
    await asyncio.gather(*[turns.piece(name) for name in range(8)])
    turns.stop()
    assert len({turn for turn, _ in turns.worked}) == 8
    assert [name for _, name in turns.worked] == [*range(8)]


async def test_those_who_come_later_share_turns_with_those_who_wait() -> None:
    turns = Turns()

    async def more(name: int) -> None:
        for _ in range(5):
            await turns.piece(name)
            await asyncio.sleep(0)

    await asyncio.gather(*[more(name) for name in range(4)])
    turns.stop()
    assert len(turns.worked) == 20
    assert len({turn for turn, _ in turns.worked}) == 20


async def test_short_pieces_wait_for_nobody() -> None:
    turns = Turns()
    await asyncio.gather(*[turns.piece(name, 0) for name in range(8)])
    turns.stop()
    assert len({turn for turn, _ in turns.worked}) == 1


async def test_who_gives_up_holds_up_nobody() -> None:
    turns = Turns()
    tasks = [asyncio.ensure_future(turns.piece(name)) for name in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await turns.piece(4)
    turns.stop()
    assert [name for _, name in turns.worked] == [0, 3, 4]
