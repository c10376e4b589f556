"""Group commit: when a batch begins, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.virtual_time import run

from hearth.batch import GroupCommit, write_apart
from hearth.models.errors import StoreRefused, StoreUnavailable

_COMMIT_S = 0.001
_CALL_S = 0.008


class World:
    """Callers who work, then have an item written, and so on; as agents do with records.

    Attributes:
        batches: What was written, in order.
        waits: How long each item took, in order of their ends.
    """

    def __init__(self, commit_s: float = _COMMIT_S, *, tells: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.waits: list[float] = []
        self.callers = 0
        self._commit_s = commit_s
        self.commits = GroupCommit(self._write, under_way=(lambda: self.callers) if tells else lambda: 0)

    async def _write(self, items: list[str]) -> list[str]:
        await asyncio.sleep(self._commit_s)
        self.batches.append(items)
        return items

    async def item(self, name: str, call_s: float) -> None:
        """One call."""
        self.callers += 1
        await asyncio.sleep(call_s)
        begun = asyncio.get_running_loop().time()
        assert await self.commits.put(name) == name
        self.waits.append(asyncio.get_running_loop().time() - begun)
        self.callers -= 1

    async def caller(self, name: str, calls: int, call_s: float) -> None:
        """One call after another."""
        for number in range(calls):
            await self.item(f"{name}.{number}", call_s)

    async def crowd(self, callers: int, calls: int) -> None:
        """Callers that began at different moments."""
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(self.caller(f"{number}", calls, _CALL_S * (1 + number / callers)))


def test_a_caller_on_its_own_never_waits_for_company() -> None:
    world = World()
    run(world.caller("a", 50, 0.0001))
    assert max(world.waits) == pytest.approx(_COMMIT_S)


def test_few_callers_do_not_wait_for_each_other() -> None:
    world = World()
    run(world.crowd(3, 50))
    assert max(world.waits) < 3 * _COMMIT_S


def test_many_callers_share_fewer_commits_and_wait_a_few_milliseconds_at_most() -> None:
    held, eager = World(), World(tells=False)
    for world in (held, eager):
        run(world.crowd(32, 20))
        assert sorted(name for batch in world.batches for name in batch) == sorted(
            f"{caller}.{number}" for caller in range(32) for number in range(20)
        )
    assert 3 * len(held.batches) < 2 * len(eager.batches)
    assert max(held.waits) < 0.003 + 2 * _COMMIT_S


def test_a_batch_is_not_held_after_a_pause_or_a_slow_write() -> None:
    async def scenario(world: World) -> float:
        world.callers = 100
        await world.caller("busy", 1, 0)
        await asyncio.sleep(0.01)
        begun = asyncio.get_running_loop().time()
        await world.caller("after", 1, 0)
        return asyncio.get_running_loop().time() - begun

    assert run(scenario(World())) == pytest.approx(_COMMIT_S)

    async def one_after_another(world: World) -> float:
        world.callers = 100
        first = world.commits.put("first")
        await asyncio.sleep(0)
        others = [world.commits.put(f"{number}") for number in range(20)]
        await first
        begun = asyncio.get_running_loop().time()
        await others[0]
        return asyncio.get_running_loop().time() - begun

    assert run(one_after_another(World(0.05))) == pytest.approx(0.05)


def test_closing_writes_what_is_held() -> None:
    async def scenario() -> list[list[str]]:
        world = World()
        world.callers = 100
        first = world.commits.put("first")
        await asyncio.sleep(0)
        for number in range(20):
            world.commits.put(f"{number}")
        await first
        await world.commits.close()
        assert world.commits.waiting == 0
        return world.batches

    assert run(scenario()) == [["first"], [f"{number}" for number in range(20)]]


def test_items_are_written_in_their_order_and_no_batch_exceeds_its_size() -> None:
    async def scenario() -> list[list[int]]:
        batches: list[list[int]] = []

        async def write(items: list[int]) -> list[int]:
            batches.append(items)
            await asyncio.sleep(0.001)
            return items

        commits: GroupCommit[int, int] = GroupCommit(write, max_batch=7, under_way=lambda: 1000)
        await asyncio.gather(*[commits.put(number) for number in range(50)])
        return batches

    batches = run(scenario())
    assert [number for batch in batches for number in batch] == list(range(50))
    assert max(map(len, batches)) == 7


def test_an_error_reaches_every_item_of_its_batch_and_no_other() -> None:
    async def scenario() -> tuple[list[Any], Any]:
        async def write(items: list[str]) -> list[str]:
            if "bad" in items:
                raise ValueError("bad")
            return items

        commits: GroupCommit[str, str] = GroupCommit(write)
        failed = await asyncio.gather(commits.put("bad"), commits.put("beside"), return_exceptions=True)
        return failed, await commits.put("later")

    failed, later = run(scenario())
    assert [str(error) for error in failed] == ["bad", "bad"]
    assert later == "later"


async def test_each_hears_of_a_write_that_tells_too_few_results_and_the_next_one_is_written() -> None:
    told: list[list[str]] = [["a"], ["c"]]

    async def write(_: list[str]) -> list[str]:
        return told.pop(0)

    commits = GroupCommit(write)
    for item in [commits.put("a"), commits.put("b")]:
        with pytest.raises(ValueError, match="1 results of 2 items"):
            await item
    assert await commits.put("c") == "c"


async def test_only_what_is_refused_hears_of_it() -> None:
    written: list[int] = []

    async def write(items: list[int]) -> list[str]:
        if 5 in items:
            raise StoreRefused("no fives")
        written.extend(items)
        return [str(item) for item in items]

    found = await write_apart(write, list(range(8)), refused=lambda item, exc: f"{item}: {exc}")
    assert found == ["0", "1", "2", "3", "4", "5: no fives", "6", "7"]
    assert written == [0, 1, 2, 3, 4, 6, 7]


async def test_a_store_that_is_away_refuses_nothing() -> None:
    async def write(_: list[int]) -> list[str]:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        await write_apart(write, [1, 2], refused=lambda item, _: str(item))
