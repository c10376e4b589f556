"""What calls and containers do to the metrics: Fn's table of who is counted where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.support.agent import WATCH_S, Bench, bench
from tests.support.scrape import Watch
from tests.support.virtual_time import run

from hearth.drivers.base import StartFailed
from hearth.telemetry.node import Telemetry
from hearth.testing.script import Pipe, Script, Step

COUNTERS = ("calls", "completed", "failed", "timeouts", "errors", "server_busy")


def play(scenario: Callable[[Bench, Watch], Coroutine[Any, Any, None]], **options: Any) -> Watch:
    """Run a scenario; return what its agent has counted."""
    telemetry = Telemetry()
    watch = Watch(telemetry.metrics)

    async def whole() -> None:
        async with bench(telemetry=telemetry, **options) as made:
            await scenario(made, watch)

    run(whole())
    return watch


def counted(watch: Watch, path: str = "/f") -> dict[str, int]:
    """The counters that moved; what goes up and down must be where it was."""
    assert (watch("fn_queued", "a", path), watch("fn_running", "a", path)) == (0, 0)
    moved = {name: int(watch(f"fn_{name}", "a", path)) for name in COUNTERS}
    return {name: count for name, count in moved.items() if count}


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ({}, {"calls": 1, "completed": 1}),
        ({"exit": 1}, {"calls": 1, "failed": 1, "errors": 1}),
        ({"raw": "garbage\n\n"}, {"calls": 1, "failed": 1, "errors": 1}),
        ({"sleep": 9}, {"calls": 1, "failed": 1, "timeouts": 1}),
    ],
)
def test_each_outcome_of_an_execution_is_counted(orders: dict[str, Any], expected: dict[str, int]) -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        await asyncio.gather(on.start(on.function(timeout=2), **orders), return_exceptions=True)

    assert counted(play(scenario)) == expected


def test_a_call_that_finds_no_container_in_time_is_busy_and_not_failed() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        long = on.start(on.function("/busy", memory=1000, timeout=60), sleep=40)
        await asyncio.sleep(1)
        await asyncio.gather(on.start(on.function(memory=1000, timeout=4)), return_exceptions=True)
        await long

    assert counted(play(scenario)) == {"calls": 1, "server_busy": 1}


def test_a_start_that_fails_is_a_failure_of_its_call() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        await asyncio.gather(on.start(on.function(image="broken")), return_exceptions=True)

    broken = Script(start=Step(error=StartFailed("no", image_fault=True)))
    assert counted(play(scenario, images={"broken": broken})) == {"calls": 1, "failed": 1, "errors": 1}


def test_a_client_that_leaves_while_its_call_waits_is_a_failure() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        long = on.start(on.function("/busy", memory=1000, timeout=60), sleep=9)
        await asyncio.sleep(1)
        gone = on.start(on.function(memory=1000, timeout=60))
        await asyncio.sleep(1)
        assert watch("fn_queued", "a", "/f") == 1
        gone.cancel()
        await asyncio.gather(gone, long, return_exceptions=True)

    assert counted(play(scenario)) == {"calls": 1, "failed": 1, "errors": 1}


def test_a_call_that_waits_when_the_node_drains_is_a_failure() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        long = on.start(on.function("/busy", memory=1000, timeout=60), sleep=9)
        await asyncio.sleep(1)
        waits = on.start(on.function(memory=1000, timeout=60))
        await asyncio.sleep(1)
        on.agent.drain()
        await asyncio.gather(waits, long, return_exceptions=True)

    assert counted(play(scenario)) == {"calls": 1, "failed": 1, "errors": 1}


@pytest.mark.parametrize("format_name", ["json", "default"])
def test_gauges_follow_a_call_and_its_container(format_name: str) -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        image = {"json": "obey", "default": "slow"}[format_name]
        function = on.function(format=format_name, image=image, timeout=30, idle_timeout=30)
        call = on.start(function, sleep=5)
        await asyncio.sleep(2)
        assert (watch("fn_queued", "a", "/f"), watch("fn_running", "a", "/f")) == (0, 1)
        assert watch("fn_container_busy_total", "a", "/f") == 1
        await asyncio.gather(call, return_exceptions=True)
        if format_name == "json":
            await asyncio.sleep(WATCH_S)
            assert watch("fn_container_idle_total", "a", "/f") == 1
            await asyncio.sleep(7)

    async def five_seconds(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await asyncio.sleep(5)
        return 0

    watch = play(scenario, images={"slow": Script(main=five_seconds)})
    for state in ("wait", "start", "idle", "busy"):
        assert watch(f"fn_container_{state}_total", "a", "/f") == 0
        assert watch(f"fn_container_{state}_duration_seconds_count", "a", "/f") >= 1
    assert watch("fn_container_done_total", "a", "/f") == 1
    if format_name == "json":
        assert watch("fn_container_busy_duration_seconds_sum", "a", "/f") == pytest.approx(5, abs=0.1)
        assert watch("fn_container_idle_duration_seconds_sum", "a", "/f") == pytest.approx(7, abs=0.1)


def test_samples_are_exported_between_calls_too() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        await on.ask(on.function(timeout=30, idle_timeout=30))
        await asyncio.sleep(10)
        assert watch("fn_docker_stats_fn_mem_usage_count", "a", "/f") >= 9
        assert on.records.ended[0].call.stats in (None, [])

    play(scenario)


def test_every_submit_has_its_three_spans() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        await on.ask(on.function())
        await asyncio.gather(on.start(on.function(), exit=1), return_exceptions=True)

    watch = play(scenario)
    assert watch("fn_span_agent_submit_duration_seconds_count", "a", "/f") == 2
    assert watch("fn_span_agent_submit_app_duration_seconds_count", "a") == 2
    assert watch("fn_span_agent_submit_global_duration_seconds_count") == 2
    for span, count in {"get_slot": 2, "wait_hot": 2, "hot_exec": 2, "call_start": 2, "call_end": 2}.items():
        assert watch(f"fn_span_agent_{span}_duration_seconds_count", "a", "/f") == count, span
    for span in ("hot_launcher", "run_hot", "get_resource_token"):
        assert watch(f"fn_span_agent_{span}_duration_seconds_count", "a", "/f") >= 1, span


def test_a_cold_call_has_its_spans() -> None:
    async def scenario(on: Bench, watch: Watch) -> None:
        await asyncio.gather(on.start(on.function(format="default", image="cold")), return_exceptions=True)

    watch = play(scenario, images={"cold": Script()})
    for span in ("get_slot", "launch_cold", "prep_cold", "cold_exec", "get_resource_token", "call_start", "call_end"):
        assert watch(f"fn_span_agent_{span}_duration_seconds_count", "a", "/f") == 1, span
