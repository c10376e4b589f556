"""A container that is frozen between calls (drivers specification 1)."""

from __future__ import annotations

import asyncio

from tests.support.driver_bench import Bench, until

from hearth.drivers.base import Container


async def echoed(container: Container, data: bytes) -> bytes:
    await container.channel.stdin.write(data)
    answer = b""
    while len(answer) < len(data):
        answer += await container.channel.stdout.read()
    return answer


async def test_a_frozen_container_does_nothing_until_it_is_thawed(bench: Bench) -> None:
    frozen, other = await bench.start("echo"), await bench.start("echo")
    assert bench.driver.capabilities.freeze
    for _ in range(2):
        assert await echoed(frozen, b"before") == b"before"
        await frozen.freeze()
        await frozen.channel.stdin.write(b"while")
        for _ in range(3):
            assert await echoed(other, b"beside") == b"beside"
        if bench.stops_processes:
            assert frozen.channel.stdout.read_nowait() is None
        await frozen.thaw()
        assert await frozen.channel.stdout.read() == b"while"
        assert await echoed(frozen, b"after") == b"after"


async def test_a_thaw_too_many_does_no_harm(bench: Bench) -> None:
    container = await bench.start("echo")
    await container.thaw()
    await container.freeze()
    await container.thaw()
    await container.thaw()
    assert await echoed(container, b"after") == b"after"


async def test_a_frozen_container_is_killed_and_removed(bench: Bench) -> None:
    killed, removed = await bench.start("sleep"), await bench.start("sleep")
    await asyncio.gather(killed.freeze(), removed.freeze())
    await killed.kill()
    assert (await killed.wait()).code == 137
    await asyncio.gather(killed.remove(), removed.remove())
    assert bench.left() == []


async def test_a_frozen_container_that_a_stranger_kills_has_ended_once_it_is_thawed(bench: Bench) -> None:
    container = await bench.start("echo")
    assert await echoed(container, b"before") == b"before"
    await container.freeze()
    bench.harm(container)
    await container.thaw()
    assert (await container.wait()).code == 137
    await until(lambda: container.exited is not None)
    await container.thaw()
    await container.remove()
    assert bench.left() == []
