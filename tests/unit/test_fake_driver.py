"""The scripted driver does what its script says, on either event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from tests.support.clock import FakeClock

from hearth.drivers.base import (
    ContainerSpec,
    DriverUnavailable,
    Exit,
    ImageError,
    ImageNotFound,
    OutOfTime,
    PhaseLimits,
    StartFailed,
    StreamClosed,
)
from hearth.testing.scripted_driver import FakeContainer, FakeDriver, Pipe, Plan, Script, Step, echo

LIMITS = PhaseLimits(pull_s=40, create_s=30, start_s=20, remove_s=10)
PHASES = {"pull": 40.0, "create": 30.0, "start": 20.0, "remove": 10.0}
Scenario = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a scenario on each event loop."""

    def run(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario)

    return run


def made(plan: Plan) -> tuple[FakeDriver, FakeClock]:
    clock = FakeClock()
    return FakeDriver(clock, {"f": plan}, limits=LIMITS), clock


def spec(number: int = 0, image: str = "f") -> ContainerSpec:
    return ContainerSpec(id=f"{number:026}", image=image, env={}, memory_mib=64)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def whole_life(driver: FakeDriver, number: int = 0) -> FakeContainer:
    container = await driver.prepare(spec(number))
    try:
        await container.start()
    finally:
        await container.remove()
    return container


def test_a_program_answers_calls(run: Callable[..., None]) -> None:
    async def scenario() -> None:
        driver, _ = made(Script(main=echo))
        container = await driver.prepare(spec())
        await container.start()
        for call in (b"one", b"two"):
            await container.channel.stdin.write(call)
            assert await container.channel.stdout.read() == call
        container.channel.stdin.close()
        assert await container.channel.stdout.read() == b""
        assert await container.wait() == Exit(0) == container.exited
        await container.remove()
        assert (driver.counts.alive, driver.counts.memory_mib, driver.containers) == (0, 0, {})

    run(scenario())


def test_a_full_pipe_holds_the_writer_back_on_both_sides(run: Callable[..., None]) -> None:
    async def flood(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        for _ in range(100):
            await stdout.write(b"x" * 65536)
        return 0

    async def scenario() -> None:
        driver, _ = made(Script(main=flood))
        container = await driver.prepare(spec())
        await container.start()
        await settle()
        assert container.channel.stdout.size < 1 << 20
        writing = asyncio.ensure_future(container.channel.stdin.write(b"x" * (1 << 20)))
        await settle()
        assert not writing.done()
        assert container.channel.stdin.pending > 0
        taken = 0
        while data := await container.channel.stdout.read():
            taken += len(data)
        assert taken == 100 * 65536
        with pytest.raises(StreamClosed):
            await writing
        await container.remove()

    run(scenario())


def test_bytes_in_the_kernel_are_seen_before_they_arrive(run: Callable[..., None]) -> None:
    async def late(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await stdin.read()
        stdout.post(b"late")
        await stdin.read()
        return 0

    async def scenario() -> None:
        driver, _ = made(Script(main=late))
        container = await driver.prepare(spec())
        await container.start()
        assert container.channel.stdout.quiet()
        await container.channel.stdin.write(b"x")
        await asyncio.sleep(0)  # the program has answered, the loop has not delivered
        await asyncio.sleep(0)
        assert not container.channel.stdout.quiet()
        assert await container.channel.stdout.read() == b"late"
        assert container.channel.stdout.quiet()
        await container.remove()
        assert not container.channel.stdout.quiet()

    run(scenario())


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_hangs_ends_at_its_limit(run: Callable[..., None], phase: str) -> None:
    async def scenario() -> None:
        step = Step(held=True)
        driver, clock = made(Script(is_present=phase != "pull", **dict[str, Any]({phase: step})))
        living = asyncio.ensure_future(whole_life(driver))
        await settle()
        clock.advance(PHASES[phase] - 0.1)
        await settle()
        assert not living.done()
        clock.advance(0.2)
        with pytest.raises(OutOfTime, match=phase):
            await living
        step.release()
        await settle()
        assert driver.counts.alive == 0
        await whole_life(driver, 1)
        await driver.close()
        assert clock.pending == 0

    run(scenario())


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_goes_on_when_it_is_released(run: Callable[..., None], phase: str) -> None:
    async def scenario() -> None:
        step = Step(held=True)
        driver, clock = made(Script(is_present=phase != "pull", **dict[str, Any]({phase: step})))
        living = asyncio.ensure_future(whole_life(driver))
        await settle()
        step.release()
        await living
        assert driver.counts.removed == 1
        assert clock.pending == 0

    run(scenario())


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_takes_its_time(run: Callable[..., None], phase: str) -> None:
    async def scenario() -> None:
        driver, clock = made(Script(is_present=phase != "pull", **dict[str, Any]({phase: Step(delay_s=3)})))
        living = asyncio.ensure_future(whole_life(driver))
        await settle()
        clock.advance(2.9)
        await settle()
        assert not living.done()
        clock.advance(0.2)
        await living

    run(scenario())


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_fails_as_often_as_it_should(run: Callable[..., None], phase: str) -> None:
    async def scenario() -> None:
        step = Step(error=StartFailed("no"), failures=2)
        driver, _ = made(Script(is_present=phase != "pull", **dict[str, Any]({phase: step})))
        for number in range(2):
            with pytest.raises(StartFailed):
                await whole_life(driver, number)
        for left in list(driver.containers.values()):
            await left.remove()
        await whole_life(driver, 9)
        assert driver.counts.alive == 0

    run(scenario())


def test_one_pull_serves_all_who_wait_and_outlives_those_who_leave(run: Callable[..., None]) -> None:
    async def scenario() -> None:
        step = Step(held=True)
        driver, _ = made(Script(is_present=False, pull=step))
        waiting = [asyncio.ensure_future(driver.prepare(spec(number))) for number in range(50)]
        await settle()
        waiting[0].cancel()
        await settle()
        step.release()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(result, FakeContainer) for result in results) == 49
        assert (driver.counts.pulls, driver.counts.alive) == (1, 49)

    run(scenario())


def test_a_failed_pull_is_told_to_all_and_tried_again(run: Callable[..., None]) -> None:
    async def scenario() -> None:
        driver, _ = made(Script(is_present=False, pull=Step(error=ImageError("f", "no"), failures=1, delay_s=0)))
        results = await asyncio.gather(*[driver.prepare(spec(n)) for n in range(5)], return_exceptions=True)
        assert [type(result) for result in results] == [ImageError] * 5
        await driver.prepare(spec(9))
        assert driver.counts.pulls == 2
        with pytest.raises(ImageNotFound):
            await driver.prepare(spec(10, image="none"))
        driver.unavailable = "gone"
        with pytest.raises(DriverUnavailable):
            await driver.prepare(spec(11))

    run(scenario())


def test_ends_on_demand_are_told_apart(run: Callable[..., None]) -> None:
    async def scenario() -> None:
        driver, _ = made(Script())
        for number, ended in enumerate((Exit(137, oom=True), Exit(139), Exit(3, error="said so"))):
            container = await driver.prepare(spec(number))
            seen: list[Exit] = []
            container.on_exit(seen.append)
            await container.start()
            driver.containers[container.id].end(ended)
            assert await container.channel.stdout.read() == b""
            assert await container.wait() == ended
            await settle()
            assert seen == [ended]
            await container.remove()

    run(scenario())


def test_samples_come_once_a_second_and_end_with_the_container(run: Callable[..., None]) -> None:
    async def scenario() -> None:
        driver, clock = made(Script(metrics={"cpu_total": 7}))
        container = await driver.prepare(spec())
        await container.start()
        samples = []

        async def look() -> None:
            async for sample in container.stats():
                samples.append(sample)  # noqa: PERF401 - what came before the end matters too

        looking = asyncio.ensure_future(look())
        for _ in range(3):
            await settle()
            clock.advance(1)
        await settle()
        assert [sample.metrics["cpu_total"] for sample in samples] == [7, 7, 7]
        assert len(samples[0].metrics) == 9
        await container.remove()
        await looking

    run(scenario())


@pytest.mark.parametrize("delay_s", [0, 1])
def test_cancelled_anywhere_nothing_is_left(run: Callable[..., None], delay_s: int) -> None:
    async def once(cancel_at: int) -> bool:
        step = Step(delay_s=delay_s)
        driver, clock = made(Script(is_present=False, pull=step, create=step, start=step, remove=step))
        living = asyncio.ensure_future(whole_life(driver))
        for _ in range(cancel_at):
            await asyncio.sleep(0)
            clock.advance(0.25)
        living.cancel()
        for _ in range(20):
            await settle()
            clock.advance(1)
        assert driver.counts.alive == 0, driver
        assert clock.pending == 0
        await driver.close()
        return not living.cancelled()

    async def scenario() -> None:
        cancel_at = 0
        while not await once(cancel_at):
            cancel_at += 1

    run(scenario())
