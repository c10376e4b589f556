"""When a container whose stderr lags is offered again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.agent import Bench, answer, bench, function_program
from tests.support.clock import FakeClock
from tests.support.virtual_time import run

from hearth.agent.call import LineLog
from hearth.agent.quiet import Lag, QuietWait
from hearth.agent.stderr import ContainerStderr
from hearth.drivers.base import Exit
from hearth.drivers.streams import StreamBuffer
from hearth.testing.script import Pipe, Script
from hearth.testing.scripted_driver import FakeDriver

TICK_S = 0.001


class Overloaded(FakeClock):
    """Its timers are late."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        return super().call_at(when + 0.02, callback, *args)


class World:
    """The stderr of one container, and when it was offered again."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.lag = Lag()
        self.unseen = False
        self.lines = StreamBuffer(lambda: None, lambda: None, lambda: self.unseen)
        stdout = StreamBuffer(lambda: None, lambda: None)
        stderr = ContainerStderr(self.lines, self.clock, LineLog(dict), lags=True)
        self.wait = QuietWait(self.clock, self.lag, stdout, stderr)
        self.offered = 0

    def answer(self) -> None:
        if not self.wait.begin(self._offer, stdout_s=0):
            self._offer()

    def _offer(self) -> None:
        self.offered += 1

    def waits_ms(self) -> int:
        """How long until it is offered."""
        before, waited = self.offered, 0
        while self.offered == before:
            self.clock.advance(TICK_S)
            waited += 1
            assert waited < 1000
        return waited


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_container_that_writes_nothing_waits_after_its_first_call_only(world: World) -> None:
    world.answer()
    assert (world.offered, world.waits_ms()) == (0, 5)
    for number in range(10):
        world.answer()
        assert world.offered == 2 + number
    assert world.clock.pending == 0


async def test_one_that_writes_is_offered_once_it_has_been_quiet(world: World) -> None:
    world.answer()
    world.clock.advance(4 * TICK_S)
    world.lines.feed(b"line\n")
    assert world.waits_ms() == 4 * 4  # some times what the line was late by
    for _ in range(100):
        world.answer()
        assert world.waits_ms() >= 5
    world.answer()
    assert world.clock.pending == 0


async def test_what_the_kernel_holds_is_waited_for(world: World) -> None:
    world.answer()
    world.unseen = True
    world.clock.advance(20 * TICK_S)
    assert world.offered == 0
    world.unseen = False
    assert world.waits_ms() == 1


async def test_one_that_never_stops_writing_is_not_waited_for(world: World) -> None:
    world.answer()
    world.unseen = True
    waited = 0
    while not world.offered and waited < 1000:
        world.lines.feed(b"line\n")
        world.clock.advance(TICK_S)
        waited += 1
    assert 100 < waited < 300


async def test_a_busy_machine_makes_all_wait_longer_until_it_is_quiet_again() -> None:
    world = World(Overloaded())
    world.answer()
    assert world.waits_ms() == 5 + 20
    assert world.lag.quiet_s == pytest.approx(0.02)
    for _ in range(2000):
        world.lag.note(0)
    assert world.lag.quiet_s == 0.005


async def test_nothing_happens_once_it_was_cancelled(world: World) -> None:
    world.answer()
    world.wait.cancel()
    assert (world.clock.pending, world.offered) == (0, 0)


def test_a_line_that_comes_late_is_in_the_log_of_its_call_although_the_next_one_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lagging = dataclasses.replace(FakeDriver.capabilities, stderr_lags=True)
    monkeypatch.setattr(FakeDriver, "capabilities", lagging)

    async def late(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        await stdout.write(answer(""))
        await asyncio.sleep(0.004)  # an Engine that is behind
        await stderr.write(f"{call['body']}\n".encode())

    async def scenario(on: Bench) -> None:
        function = on.function(image="late", memory=1000)  # room for one container
        await asyncio.gather(*[on.ask(function, number=number) for number in range(20)])
        await asyncio.sleep(1)
        logs = {one.call.id: one.log.decode() for one in on.records.ended}
        assert sorted(logs.values()) == sorted(f'{{"number": {number}}}\n' for number in range(20))
        assert on.driver.counts.prepared == 1

    async def play() -> None:
        async with bench(images={"late": Script(main=function_program(late))}) as on:
            await scenario(on)

    run(play())


def test_a_call_waits_for_no_container_that_ends_after_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While its stderr is awaited it counts as one that is offered soon: it ends instead."""
    lagging = dataclasses.replace(FakeDriver.capabilities, stderr_lags=True)
    monkeypatch.setattr(FakeDriver, "capabilities", lagging)

    async def scenario(on: Bench) -> None:
        function = on.function()
        await on.ask(function)
        second = on.start(function)
        await asyncio.sleep(0)
        began = on.clock.monotonic()
        (container,) = on.driver.containers.values()
        container.script.remove.held = True
        container.end(Exit(0))
        await second
        container.script.remove.release()
        assert on.clock.monotonic() - began < 0.1

    async def play() -> None:
        async with bench() as on:
            await scenario(on)

    run(play())
