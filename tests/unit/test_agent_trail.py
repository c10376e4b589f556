"""What a call leaves for those who look at it later: its log lines, its times, its samples."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import pytest
from tests.support.agent import TOTAL, WATCH_S, Bench, Body, Sink, answer, bench, function_program, settle
from tests.support.virtual_time import VirtualClock, run

from hearth.drivers.base import Exit
from hearth.models.call import Call
from hearth.models.errors import ContainerExited, ServerBusy
from hearth.models.function import Amount
from hearth.models.times import format_time
from hearth.testing.script import Pipe, Script


def play(scenario: Any, **options: Any) -> None:
    async def whole() -> None:
        async with bench(**options) as on:
            await scenario(on)

    run(whole())


@pytest.mark.parametrize("format_name", ["json", "default"])
def test_each_step_of_a_call_is_logged_with_its_id(format_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    async def scenario(on: Bench) -> None:
        call = on.call(on.function(format=format_name), echo="x")
        await on.agent.submit(call)
        seen.append(call.record.id)

    play(scenario)
    log = capsys.readouterr().out
    of_call = "\n".join(line for line in log.splitlines() if seen[0] in line)
    steps = ["call submitted", " obtained", "call started", "call recorded", "call ended"]
    assert [step for step in steps if step not in of_call] == []
    assert log.count("container started ") == 1


def test_the_launcher_logs_its_counts_when_they_change(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(on: Bench) -> None:
        await asyncio.gather(*[on.ask(on.function(memory=10), sleep=1) for _ in range(3)])

    play(scenario)
    lines = [line for line in capsys.readouterr().out.splitlines() if "launcher state" in line]
    assert "waiting_calls=3" in lines[0]
    assert any("busy=3" in line for line in lines)
    assert len(lines) < 10


def test_a_wall_clock_that_jumps_back_makes_no_call_end_before_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = VirtualClock.now

    def jumping(self: VirtualClock) -> dt.datetime:
        return now(self) - dt.timedelta(hours=1 if self.monotonic() > 0.5 else 0)

    monkeypatch.setattr(VirtualClock, "now", jumping)

    async def scenario(on: Bench) -> None:
        await on.ask(on.function(), sleep=2)
        record = on.records.ended[0].call
        assert record.started_at is not None
        assert record.completed_at is not None
        assert record.created_at <= record.started_at <= record.completed_at
        assert record.completed_at - record.started_at == dt.timedelta(seconds=2)

    play(scenario)


def test_a_call_that_a_node_ahead_accepted_starts_after_it_and_has_the_deadline_of_this_machine() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(type="async", timeout=30)
        ahead = on.clock.now() + dt.timedelta(hours=1)
        record = Call.of(function, "accepted", ahead, method="POST", url="http://h/r/a/f", headers={})
        call = on.agent.accepted_call(function, record)
        deadline = call.input().deadline
        await on.agent.run(call)
        assert deadline == format_time(on.clock.now() + dt.timedelta(seconds=30))
        assert call.started_at == on.clock.now()
        assert ahead <= record.started_at <= record.completed_at

    play(scenario)


def test_room_for_async_calls_counts_the_idle_containers_of_async_functions_only() -> None:
    async def scenario(on: Bench) -> None:
        def idle() -> Amount:
            return on.agent.pool.host.standby.idle_async

        later = on.function("/async", type="async", memory=100)
        await asyncio.gather(*[on.ask(later, sleep=1) for _ in range(3)])
        await on.ask(on.function("/sync", memory=200))
        await asyncio.sleep(WATCH_S)
        assert idle() == Amount(300, 0)
        busy = on.start(later, sleep=1)
        await settle()
        assert idle() == Amount(200, 0)
        await busy
        await asyncio.sleep(WATCH_S)
        next(one for one in on.driver.containers.values() if one.spec.memory_mib == 100).end(Exit(0))
        await settle()
        assert idle() == Amount(200, 0)
        await asyncio.sleep(1000)
        assert idle() == Amount(0, 0)

    play(scenario, total=TOTAL)


def test_samples_taken_during_a_call_are_its_own_and_are_thinned_out() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=1000, type="async")
        call = on.call(function, sleep=3.5)
        await on.agent.submit(call)
        await asyncio.sleep(10)
        assert len(call.samples) == 3
        await on.ask(function, sleep=2.5)
        await asyncio.sleep(10)
        await on.ask(function, sleep=600)
        first, second, long = [one.call.stats for one in on.records.ended]
        assert len(first) == 3
        assert 2 <= len(second) <= 3
        assert len(long) == 240

    play(scenario)


def test_samples_of_a_container_of_one_call_are_that_calls_own() -> None:
    async def one_call(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await asyncio.sleep(3.5)
        await stdout.write(b"answer")
        return 0

    async def scenario(on: Bench) -> None:
        function = on.function(image="cold", format="default", timeout=100)
        calls = [on.call(function) for _ in range(2)]
        for call in calls:
            await on.agent.submit(call)
            await asyncio.sleep(10)
        assert [len(call.samples) for call in calls] == [3, 3]
        assert [len(one.call.stats) for one in on.records.ended] == [3, 3]

    play(scenario, images={"cold": Script(main=one_call)})


def test_stderr_between_calls_is_in_no_log_and_the_next_call_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    async def gossip(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        await stderr.write(b"in ")
        await stdout.write(answer(""))
        await asyncio.sleep(0.5)
        await stderr.write(b"between\n")

    async def scenario(on: Bench) -> None:
        function = on.function(image="gossip")
        for _ in range(2):
            await on.ask(function)
            await asyncio.sleep(2)
        assert [one.log for one in on.records.ended] == [b"in ", b"in "]

    play(scenario, images={"gossip": Script(main=function_program(gossip))})
    lines = [line for line in capsys.readouterr().out.splitlines() if "between " in line]
    assert len(lines) == 2
    assert all("between_log=True" in line for line in lines)


def test_a_call_waits_for_its_cold_container_for_half_of_its_timeout() -> None:
    async def scenario(on: Bench) -> None:
        holder = on.start(on.function("/holder", memory=1000, timeout=100), sleep=50)
        await settle()
        begun = on.clock.monotonic()
        with pytest.raises(ServerBusy):
            await on.agent.submit(on.call(on.function(format="default", memory=500, timeout=10)))
        assert on.clock.monotonic() - begun == 5
        await holder

    play(scenario)


def test_a_function_without_calls_is_forgotten_after_an_hour_and_not_before() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(idle_timeout=30)
        await on.ask(function)
        await asyncio.sleep(1800)
        assert function.hot_key in on.agent.pool.launchers
        await on.ask(function)
        await asyncio.sleep(2400)
        assert function.hot_key in on.agent.pool.launchers
        await asyncio.sleep(1800)
        assert function.hot_key not in on.agent.pool.launchers

    async def whole() -> None:
        async with bench() as on:
            await scenario(on)

    run(whole(), limit_s=10_000)


def test_headers_of_a_function_that_fails_after_its_head_are_not_completed() -> None:
    async def dies(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> int:
        await stdout.write(json.dumps({"body": "x"}).encode()[:5])
        return 3

    async def scenario(on: Bench) -> None:
        sink = Sink()
        with pytest.raises(ContainerExited):
            await on.agent.submit(on.call(on.function(image="dies"), sink, body=Body(b"{}")))
        assert (sink.heads, sink.body, sink.completed) == ([], b"", 0)

    play(scenario, images={"dies": Script(main=function_program(dies))})


def test_no_timer_is_left_when_the_agent_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle] = []
    call_at = VirtualClock.call_at

    def noted(self: VirtualClock, when: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        timers.append(call_at(self, when, callback, *args))
        return timers[-1]

    monkeypatch.setattr(VirtualClock, "call_at", noted)

    async def whole() -> None:
        async with bench() as on:
            function = on.function(memory=400, timeout=100)
            calls = [on.start(function, sleep=0.15) for _ in range(4)]  # two of them wait for memory
            await asyncio.sleep(0.1)
            on.agent.drain()
            await asyncio.gather(*calls, return_exceptions=True)
        assert [timer for timer in timers if not timer.cancelled() and timer.when() > on.clock.monotonic()] == []

    run(whole())
