"""The bounded buffer between a transport and its reader: nothing is lost, doubled, or read out of order."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.drivers.streams import HIGH_WATER, PipeReader, StreamBuffer, readiness


class Tap:
    """A transport that may be turned off."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.unseen = False
        self.buffer = StreamBuffer(
            lambda: self.turns.append("off"), lambda: self.turns.append("on"), lambda: self.unseen
        )


@pytest.fixture
async def tap() -> Tap:
    return Tap()


@given(st.lists(st.one_of(st.binary(min_size=1), st.integers(1, 9), st.just("watch"), st.just("stop"))))
def test_every_byte_arrives_once_in_order(steps: list[Any]) -> None:
    async def scenario() -> None:
        buffer, written, got = Tap().buffer, b"", bytearray()
        watched: Callable[[bytes], None] = got.extend
        for step in steps:
            if isinstance(step, bytes):
                buffer.feed(step)
                written += step
            elif step == "watch":
                buffer.watch(watched)
            elif step == "stop":
                buffer.watch(None)
            else:
                got += buffer.read_nowait(step) or b""
            assert buffer.size == len(written) - len(got)
        buffer.feed_eof()
        buffer.watch(None)
        while chunk := await buffer.read():
            got += chunk
        assert bytes(got) == written
        assert buffer.read_nowait() == b""

    asyncio.run(scenario())


async def test_a_full_buffer_pauses_once_and_resumes_when_it_is_nearly_empty(tap: Tap) -> None:
    for _ in range(6):
        tap.buffer.feed(bytes(HIGH_WATER // 4))
    assert tap.turns == ["off"]
    while tap.buffer.size > HIGH_WATER // 4:
        assert tap.turns == ["off"]
        tap.buffer.read_nowait()
    assert tap.turns == ["off", "on"]


async def test_watching_a_full_buffer_lets_the_transport_go_on(tap: Tap) -> None:
    tap.buffer.feed(bytes(2 * HIGH_WATER))
    seen: list[int] = []
    tap.buffer.watch(lambda data: seen.append(len(data)))
    assert sum(seen) == 2 * HIGH_WATER
    assert tap.turns == ["off", "on"]


async def test_one_end_is_told_once(tap: Tap) -> None:
    seen: list[bytes] = []
    tap.buffer.watch(seen.append)
    tap.buffer.feed_eof()
    tap.buffer.feed_eof()
    assert seen == [b""]
    await tap.buffer.wait_ended()
    assert await tap.buffer.read() == b""


async def test_two_readers_at_once_are_a_mistake(tap: Tap) -> None:
    reading = asyncio.ensure_future(tap.buffer.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader"):
        await tap.buffer.read()
    tap.buffer.feed(b"x")
    assert await reading == b"x"


async def test_a_reader_that_gives_up_in_the_tick_of_the_bytes_loses_none(tap: Tap) -> None:
    reading = asyncio.ensure_future(tap.buffer.read())
    await asyncio.sleep(0)
    tap.buffer.feed(b"x")
    reading.cancel()
    await asyncio.wait([reading])
    assert tap.buffer.read_nowait() == b"x"


async def test_a_sink_may_stop_the_watch_and_give_back_what_it_does_not_use(tap: Tap) -> None:
    got: list[bytes] = []

    def take_one(data: bytes) -> None:
        got.append(data[:1])
        tap.buffer.watch(None, unused=data[1:])

    for data in (b"ab", b"c"):
        tap.buffer.feed(data)
    tap.buffer.watch(take_one)
    assert (got, tap.buffer.size) == ([b"a"], 2)
    assert [tap.buffer.read_nowait() for _ in range(3)] == [b"b", b"c", None]
    tap.buffer.watch(take_one)
    tap.buffer.feed(b"de")
    tap.buffer.feed(b"f")
    assert (got, tap.buffer.size) == ([b"a", b"d"], 2)
    tap.buffer.feed_eof()
    assert [tap.buffer.read_nowait() for _ in range(3)] == [b"e", b"f", b""]


async def test_a_sink_that_stops_the_watch_does_not_take_the_end(tap: Tap) -> None:
    got: list[bytes] = []

    def take_one(data: bytes) -> None:
        got.append(data)
        tap.buffer.watch(None)

    tap.buffer.feed(b"a")
    tap.buffer.feed_eof()
    tap.buffer.watch(take_one)
    assert got == [b"a"]
    tap.buffer.watch(take_one)
    assert got == [b"a", b""]


async def test_bytes_that_arrive_while_a_sink_takes_older_ones_come_after_them(tap: Tap) -> None:
    got: list[bytes] = []

    def take(data: bytes) -> None:
        if not got:
            tap.buffer.feed(b"c")
        got.append(data)

    for data in (b"a", b"b"):
        tap.buffer.feed(data)
    tap.buffer.watch(take)
    assert got == [b"a", b"b", b"c"]


async def test_a_reader_that_gave_up_is_not_woken_in_the_tick_of_the_bytes(tap: Tap) -> None:
    reading = asyncio.ensure_future(tap.buffer.read())
    await asyncio.sleep(0)
    reading.cancel()
    tap.buffer.feed(b"x")
    await asyncio.wait([reading])
    assert tap.buffer.read_nowait() == b"x"


async def test_quiet_means_nothing_here_nothing_in_the_kernel_and_no_end(tap: Tap) -> None:
    assert tap.buffer.quiet()
    tap.unseen = True
    assert not tap.buffer.quiet()
    tap.unseen = False
    tap.buffer.feed(b"x")
    assert not tap.buffer.quiet()
    tap.buffer.read_nowait()
    assert tap.buffer.quiet()
    tap.buffer.feed_eof()
    assert not tap.buffer.quiet()


def test_the_kernel_tells_of_bytes_and_of_the_end() -> None:
    ours, theirs = os.pipe()
    ready = readiness(ours)
    assert not ready()
    os.write(theirs, b"x")
    assert ready()
    os.read(ours, 1)
    assert not ready()
    os.close(theirs)
    assert ready()
    os.close(ours)


async def test_what_asks_the_kernel_may_be_kept_and_asked_after_the_end() -> None:
    reader = PipeReader()
    unseen = reader.unseen
    assert not unseen()
    ours, theirs = os.pipe()
    reader.connect(ours)
    assert not unseen()
    os.write(theirs, b"x")
    assert unseen()
    os.close(theirs)
    reader.drain()
    assert not unseen()
    again, other = os.pipe()  # they may have the number of the descriptor that was closed
    os.write(other, b"x")
    assert not unseen()
    for fd in (again, other):
        os.close(fd)
    assert [await reader.read(), await reader.read()] == [b"x", b""]


async def test_an_ended_stream_goes_without_the_garbage_collector() -> None:
    class Reader:
        def __init__(self) -> None:
            self.buffer = StreamBuffer(self.pause, self.pause, self.unseen)
            self.buffer.watch(self.take)

        def pause(self) -> None: ...

        def unseen(self) -> bool:
            return False

        def take(self, data: bytes) -> None: ...

    gc.disable()
    try:
        reader = Reader()
        gone = weakref.ref(reader)
        reader.buffer.feed_eof()
        reader.buffer.watch(reader.take)
        del reader
        assert gone() is None
    finally:
        gc.enable()
