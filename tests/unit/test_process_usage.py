"""What the meter of a container of processes sees."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest
from tests.support.clock import FakeClock

from hearth.aio.loop_share import BUDGET_S
from hearth.drivers.local.usage import Meter, samples
from hearth.host.cgroups import Group


class Members:
    """A control group as the kernel tells of it, without the kernel."""

    def __init__(self, *pids: int) -> None:
        self.members = list(pids)
        self.asked = 0

    def pids(self) -> list[int]:
        return self.members

    def memory_bytes(self) -> int:
        self.asked += 1
        return len(self.members) << 20


@pytest.fixture
def still() -> Iterator[list[int]]:
    """Two processes of which nothing changes, as they are stopped."""
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


def test_a_process_that_joins_counts_although_nothing_changed_in_the_others(still: list[int]) -> None:
    first, second = still
    group = Members(first)
    meter = Meter(first, cast(Group, group), 128, FakeClock())
    assert meter.sample().metrics["mem_usage"] == 1 << 20
    group.members.append(second)
    assert meter.sample().metrics["mem_usage"] == 2 << 20


def test_a_group_in_which_nothing_changes_is_not_measured_again(still: list[int]) -> None:
    group = Members(*still)
    meter = Meter(still[0], cast(Group, group), 128, FakeClock())
    for _ in range(3):
        assert meter.sample().metrics["mem_usage"] == 2 << 20
    assert group.asked == 1


async def test_containers_that_are_measured_at_the_same_time_have_turns_of_their_own() -> None:
    clock, turns, seen = FakeClock(), 0, Counter[int]()
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    class Slow(Members):
        """For which the kernel takes all the time that a turn of the loop has for such work."""

        def pids(self) -> list[int]:
            seen[turns] += 1
            end = time.perf_counter() + BUDGET_S
            while time.perf_counter() < end:
                pass
            return []

    def turn() -> None:
        nonlocal turns
        turns += 1
        next_turn.append(asyncio.get_running_loop().call_soon(turn))

    next_turn: list[asyncio.Handle] = []
    turn()
    found: Counter[int] = Counter()

    async def watch(number: int) -> None:
        async for _ in samples(os.getpid(), cast(Group, Slow()), 128, clock, ended):
            found[number] += 1

    watching = asyncio.gather(*[watch(number) for number in range(8)])
    while len(found) < 8:
        await asyncio.sleep(0)
        if clock.pending == 8:
            clock.advance(1)
    ended.set_result(None)
    await watching
    next_turn[-1].cancel()
    assert seen.total() == 16
    assert set(seen.values()) == {1}
