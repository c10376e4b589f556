"""Group commit: many items, one write."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.virtual_time import run

from hearth.aio.group_commit import GroupCommit, write_apart
from hearth.models.errors import StoreRefused, StoreUnavailable


def test_items_are_written_in_their_order_and_no_batch_exceeds_its_size() -> None:
    async def scenario() -> list[list[int]]:
        batches: list[list[int]] = []

        async def write(items: list[int]) -> list[int]:
            batches.append(items)
            await asyncio.sleep(0.001)
            return items

        commits: GroupCommit[int, int] = GroupCommit(write, max_batch=7)
        await asyncio.gather(*[commits.put(number) for number in range(50)])
        return batches

    batches = run(scenario())
    assert [number for batch in batches for number in batch] == list(range(50))
    assert max(map(len, batches)) == 7


def test_closing_waits_for_what_was_given() -> None:
    async def scenario() -> list[list[str]]:
        batches: list[list[str]] = []

        async def write(items: list[str]) -> list[str]:
            await asyncio.sleep(0.001)
            batches.append(items)
            return items

        commits: GroupCommit[str, str] = GroupCommit(write)
        commits.put("first")
        await asyncio.sleep(0)
        commits.put("second")
        await commits.close()
        assert commits.waiting == 0
        return batches

    assert run(scenario()) == [["first"], ["second"]]


def test_an_error_reaches_every_item_of_its_batch_and_no_other() -> None:
    async def scenario() -> tuple[Any, Any]:
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
