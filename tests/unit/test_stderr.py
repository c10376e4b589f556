"""Whose the bytes are that a container writes to stderr, and logs of which a part comes after the end of their call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.clock import FakeClock

from hearth.access.base import EndedCall
from hearth.agent.call import CallLog, LineLog
from hearth.agent.stderr import WINDOW_S, ContainerStderr, LateLogs
from hearth.drivers.streams import StreamBuffer
from hearth.models.call import Call

CALL = Call(id="1", app_name="app", path="/")


class Lines(LineLog):
    """Keeps what goes to the server's log between calls."""

    def __init__(self) -> None:
        super().__init__(dict)
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


class World:
    """The stderr of one container, and the logs that are stored after their call has ended."""

    def __init__(self, clock: FakeClock | None = None, *, lags: bool = True) -> None:
        self.clock = clock or FakeClock()
        self.lines = Lines()
        self.unseen = 0
        self.stream = StreamBuffer(lambda: None, lambda: None, self._has_unseen)
        self.stderr = ContainerStderr(self.stream, self.clock, self.lines, lags=lags)
        self.late = LateLogs(self._store, self.clock, lags=lags)
        self.stored: list[bytes] = []

    def _has_unseen(self) -> bool:
        self.unseen -= 1
        return self.unseen >= 0

    def _store(self, ended: EndedCall) -> None:
        assert ended.call is CALL
        self.stored.append(ended.log)

    def call(self, *said: bytes, limit: int = 100, served: bool = True) -> bytes:
        """A call that writes; its log at its end."""
        log = CallLog(dict, limit)
        self.stderr.log = log
        for data in said:
            self.stream.feed(data)
        if self.stderr.lags:
            self.stderr.linger()
        else:
            self.stderr.log = None
        if served:
            self.stderr.end_opening()
        return self.late.take(CALL, log)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture(params=[False, True], ids=["in time", "lags"])
async def any_world(request: pytest.FixtureRequest) -> World:
    return World(lags=request.param)


async def test_a_call_has_what_comes_while_it_runs_and_nothing_else(any_world: World) -> None:
    any_world.stream.feed(b"banner ")
    assert any_world.call(b"one ", b"two") == b"one two"
    any_world.clock.advance(2 * WINDOW_S)
    any_world.stream.feed(b"between ")
    assert any_world.call(b"three") == b"three"
    assert any_world.lines.written == b"banner between "
    assert any_world.stored == []


async def test_the_opening_is_kept_until_a_call_was_served(any_world: World) -> None:
    any_world.stream.feed(b"x" * 20_000 + b"starting\n")
    opening = any_world.stderr.opening
    assert opening.endswith(b"xstarting\n")
    assert len(opening) == 16 * 1024
    any_world.call(served=False)
    assert any_world.stderr.opening == opening
    any_world.call(served=True)
    assert any_world.stderr.opening == b""


async def test_a_lease_without_a_call_ends_no_opening(any_world: World) -> None:
    any_world.stream.feed(b"ban")
    any_world.stderr.linger()
    any_world.stream.feed(b"ner")
    assert any_world.stderr.opening == b"banner"


async def test_what_comes_late_is_stored_with_what_was_there_in_few_writes(world: World) -> None:
    assert world.call(b"early\n") == b"early\n"
    for piece in (b"late\n", b"later\n"):
        world.stream.feed(piece)
    assert world.stored == []
    world.clock.advance(0.1)
    world.stream.feed(b"last\n")
    world.clock.advance(0.1)
    assert world.stored == [b"early\nlate\nlater\n", b"early\nlate\nlater\nlast\n"]
    world.clock.advance(10 * WINDOW_S)
    world.stream.feed(b"too late")
    world.clock.advance(1)
    assert (len(world.stored), world.clock.pending) == (2, 0)
    assert world.lines.written == b"too late"


class Overloaded(FakeClock):
    """Its timers are late."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        return super().call_at(when + WINDOW_S, callback, *args)


async def test_a_timer_that_is_late_makes_the_window_no_longer() -> None:
    world = World(Overloaded())
    world.call()
    world.clock.advance(1.5 * WINDOW_S)
    world.stream.feed(b"too late")
    assert world.lines.written == b"too late"


async def test_the_next_call_ends_the_window(world: World) -> None:
    world.call(b"first")
    assert world.call(b"second") == b"second"
    world.clock.advance(0.1)
    assert world.stored == []


async def test_the_window_begins_again_after_each_call(world: World) -> None:
    world.call()
    world.clock.advance(0.9 * WINDOW_S)
    world.call(b"second")
    world.clock.advance(0.9 * WINDOW_S)
    world.stream.feed(b" late")
    world.clock.advance(0.1)
    assert world.stored == [b"second late"]


async def test_where_nothing_comes_late_nothing_is_kept() -> None:
    world = World(lags=False)
    world.call()
    world.stream.feed(b"x")
    world.clock.advance(1)
    assert (world.stored, world.clock.pending, world.lines.written) == ([], 0, b"x")


async def test_the_limit_holds_for_both_parts_together(world: World) -> None:
    world.call(b"12345", limit=8)
    world.stream.feed(b"6789")
    world.clock.advance(0.1)
    world.stream.feed(b"more")
    world.clock.advance(0.1)
    assert world.stored == [b"12345678\n-----max log size 8 bytes exceeded, truncating log-----\n"]


async def test_the_end_of_the_node_loses_nothing_that_has_come(world: World) -> None:
    world.call()
    world.stream.feed(b"late")
    world.stream.feed_eof()
    world.late.close()
    assert (world.stored, world.clock.pending) == ([b"late"], 0)


async def test_catching_up_waits_while_the_kernel_holds_something_but_not_for_ever(any_world: World) -> None:
    any_world.unseen = 5
    await any_world.stderr.catch_up()
    assert any_world.unseen == -1
    any_world.unseen = 1000
    await any_world.stderr.catch_up()
    assert 900 < any_world.unseen < 1000
