"""What containers cost and use (drivers specification 4)."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
from pathlib import Path

import pytest
from tests.support.driver_bench import Bench

from hearth.drivers.base import StatsSample

MIB = 1 << 20


def resources() -> tuple[int, int, int]:
    """Descriptors, threads, and bytes of memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), threading.active_count(), pages * os.sysconf("SC_PAGE_SIZE")


async def start_all_threads() -> None:
    """Those of the loop's pool, which it starts when it needs them and keeps."""
    barrier = threading.Barrier(min(32, (os.cpu_count() or 1) + 4))
    await asyncio.gather(*[asyncio.to_thread(barrier.wait) for _ in range(barrier.parties)])


async def test_many_containers_leave_no_trace_and_lose_no_byte(bench: Bench) -> None:
    async def lives(count: int) -> None:
        for _ in range(count):
            container = await bench.prepare("early")
            bench.made.remove(container)
            await container.start()
            await container.wait()  # nobody has read yet
            assert await container.channel.stdout.read() == b"early\n"
            assert await container.channel.stdout.read() == b""
            await container.remove()

    await start_all_threads()
    await asyncio.gather(*[lives(1) for _ in range(20)])  # as many connections to a backend as are kept for later
    descriptors, threads, memory = resources()
    await asyncio.gather(*[lives(bench.churn // 10) for _ in range(10)])
    assert bench.left() == []
    after = resources()
    assert after[0] <= descriptors
    assert after[1] <= threads
    assert after[2] - memory < 8 * MIB


async def test_samples_come_about_once_a_second_and_end_with_the_container(bench: Bench) -> None:
    container = await bench.start("burn")
    samples: list[StatsSample] = []

    async def look() -> None:
        async for sample in container.stats():
            samples.append(sample)
            if len(samples) == 3:
                await container.kill()

    await look()  # ends, because the container does
    assert len(samples) >= 3
    for before, after in itertools.pairwise(samples):
        assert (after.timestamp - before.timestamp).total_seconds() > 0.5
    last = samples[2].metrics
    assert set(last) == set(
        "net_rx net_tx mem_limit mem_usage disk_read disk_write cpu_user cpu_total cpu_kernel".split()
    )
    assert all(isinstance(value, int) and value >= 0 for value in last.values())
    assert last["mem_limit"] == 128 * MIB
    assert 0 < last["mem_usage"] <= 128 * MIB
    assert last["cpu_total"] > 0
    assert [sample async for sample in container.stats()] == []


async def test_a_bomb_of_processes_does_not_hurt_a_neighbour(bench: Bench) -> None:
    if bench.image == "probe":
        pytest.skip("the fake has no processes")
    neighbour = await bench.start("echo")
    bomb = await bench.start("fork-bomb")
    made = int(await bomb.channel.stdout.read())
    assert 10 < made <= 50
    await neighbour.channel.stdin.write(b"alive")
    assert await neighbour.channel.stdout.read() == b"alive"
    await bomb.remove()
    await neighbour.channel.stdin.write(b"still")
    assert await neighbour.channel.stdout.read() == b"still"
