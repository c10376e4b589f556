"""Three streams, bounded both ways (drivers specification 4)."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.support.driver_bench import Bench, until

from hearth.drivers.base import Container, StreamClosed
from hearth.drivers.streams import HIGH_WATER, StreamBuffer

PIECE = b"0123456789abcdef" * 4096
MIB = 1 << 20


async def read_all(container: Container) -> bytes:
    chunks = []
    while chunk := await container.channel.stdout.read():
        chunks.append(chunk)
    return b"".join(chunks)


async def feed(container: Container, data: bytes) -> None:
    for start in range(0, len(data), len(PIECE)):
        await container.channel.stdin.write(data[start : start + len(PIECE)])
    container.channel.stdin.close()


def waiting(container: Container) -> int:
    """Bytes of its stdout that nobody has read."""
    assert isinstance(container.channel.stdout, StreamBuffer)
    return container.channel.stdout.size


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 10 * MIB])
async def test_what_goes_in_comes_back(bench: Bench, size: int) -> None:
    container = await bench.start("echo")
    data = (PIECE * (size // len(PIECE) + 1))[:size]
    writing = asyncio.ensure_future(feed(container, data))
    assert await read_all(container) == data
    await writing
    assert (await container.wait()).code == 0


async def test_a_slow_reader_holds_both_directions_back(bench: Bench) -> None:
    container = await bench.start("echo")
    data = PIECE * 160
    writing = asyncio.ensure_future(feed(container, data))
    await until(lambda: waiting(container) > HIGH_WATER and container.channel.stdin.pending > 0)
    got = []
    while chunk := await container.channel.stdout.read(4096):
        got.append(chunk)
        assert waiting(container) <= 2 * HIGH_WATER
        assert container.channel.stdin.pending <= 2 * HIGH_WATER
    await writing
    assert b"".join(got) == data


async def test_output_that_nobody_reads_stops_the_function(bench: Bench) -> None:
    container = await bench.start("flood")
    stderr: list[bytes] = []
    container.stderr.watch(stderr.append)
    await until(lambda: waiting(container) > HIGH_WATER and sum(map(len, stderr)) == 10 * MIB)
    assert container.exited is None
    assert waiting(container) <= 2 * HIGH_WATER
    assert len(await read_all(container)) == 10 * MIB
    assert (await container.wait()).code == 0
    assert b"".join(stderr) == b"x" * 10 * MIB


async def test_a_container_is_removed_although_nobody_reads_its_output(bench: Bench) -> None:
    container = await bench.start("flood")
    container.stderr.watch(lambda data: None)
    await until(lambda: waiting(container) > HIGH_WATER)
    await container.remove()
    assert bench.left(ids=[container.id]) == []


async def test_input_that_nobody_reads_makes_the_writer_wait(bench: Bench) -> None:
    container = await bench.start("sleep")
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await container.channel.stdin.write(PIECE)
            written += len(PIECE)

    writing = asyncio.ensure_future(write())
    await until(lambda: writing.done() or container.channel.stdin.pending > HIGH_WATER // 4)
    assert not writing.done(), (writing.exception(), container.exited, written)
    await container.kill()
    with pytest.raises(StreamClosed):
        await writing
    assert written < 8 * MIB


async def test_a_wait_for_room_that_is_given_up_loses_nothing(bench: Bench) -> None:
    container = await bench.start("echo")
    writing = asyncio.ensure_future(container.channel.stdin.write(PIECE * 64))
    await until(lambda: container.channel.stdin.pending > HIGH_WATER)
    writing.cancel()
    container.channel.stdin.close()
    got = await read_all(container)
    assert (await container.wait()).code == 0, container.exited
    assert got == PIECE * 64


async def test_a_read_that_is_given_up_loses_nothing(bench: Bench) -> None:
    container = await bench.start("echo")
    for number in range(20):
        reading = asyncio.ensure_future(container.channel.stdout.read())
        await container.channel.stdin.write(b"%d" % number)
        await asyncio.sleep(0)
        reading.cancel()
        try:
            got = await reading
        except asyncio.CancelledError:
            got = await container.channel.stdout.read()
        assert got == b"%d" % number


async def test_watching_takes_what_is_there_and_what_comes(bench: Bench) -> None:
    container = await bench.start("echo")
    await container.channel.stdin.write(b"before")
    await until(lambda: waiting(container) > 0)
    seen: list[bytes] = []
    container.channel.stdout.watch(seen.append)
    assert seen == [b"before"]
    await container.channel.stdin.write(b"after")
    container.channel.stdin.close()
    await container.wait()
    assert seen == [b"before", b"after", b""]


async def test_a_late_second_answer_is_seen_before_the_loop_turns(bench: Bench) -> None:
    container = await bench.start("twice")
    await container.channel.stdin.write(b"call")
    assert await container.channel.stdout.read() == b"answer"
    assert container.channel.stdout.quiet()
    await container.channel.stdin.write(b"go on")
    await asyncio.sleep(0)
    deadline = time.monotonic() + 60
    while container.channel.stdout.quiet():
        assert time.monotonic() < deadline
        if bench.image == "probe":
            await asyncio.sleep(0)  # the fake's function lives on this loop
        else:
            time.sleep(0.001)  # the loop stands still: only the kernel knows
    assert container.channel.stdout.read_nowait() in (None, b"late")
    await container.remove()
    assert not container.channel.stdout.quiet()


async def test_a_closed_stdin_is_told_to_the_writer(bench: Bench) -> None:
    container = await bench.start("deaf")
    assert await container.channel.stdout.read() == b"closed"
    writing = asyncio.ensure_future(feed(container, PIECE * 1000))
    if not bench.tells_closed_streams:  # the Engine does tell now and then: it depends on which of its copies looks
        await until(lambda: writing.done() or container.channel.stdin.pending > HIGH_WATER // 4)
        await container.kill()
    with pytest.raises(StreamClosed):
        await writing
    assert container.exited is None or not bench.tells_closed_streams


async def test_the_end_of_stdout_is_told_while_the_function_lives(bench: Bench) -> None:
    container = await bench.start("mute")
    assert await container.stderr.read() == b"closed"
    if bench.tells_closed_streams:
        assert await container.channel.stdout.read() == b""
        assert container.exited is None
    container.channel.stdin.close()
    assert await container.channel.stdout.read() == b""
    assert (await container.wait()).code == 0


async def test_input_that_was_not_read_is_told_where_the_driver_sees_it(bench: Bench) -> None:
    sees = bench.driver.capabilities.unread_input
    idle, reading = await bench.start("burn"), await bench.start("echo")
    for container in (idle, reading):
        await container.channel.stdin.write(b"0123456789")
    assert await reading.channel.stdout.read() == b"0123456789"
    assert reading.channel.stdin.unread() == (0 if sees else None)
    assert idle.channel.stdin.unread() == (10 if sees else None)
    await idle.channel.stdin.write(PIECE)
    assert idle.channel.stdin.unread() == (10 + len(PIECE) if sees else None)
