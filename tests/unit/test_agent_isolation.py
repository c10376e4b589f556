"""The holes by which one call could reach another, each closed (protocols specification 9)."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import pytest
from tests.support.agent import WATCH_S, Bench, Body, Sink, answer, bench, function_program, settle
from tests.support.virtual_time import run

from hearth.drivers.base import Exit
from hearth.models.errors import CallTimeout, ContainerExited, InvalidResponse
from hearth.testing.script import Pipe, Script
from hearth.testing.scripted_driver import Plan


def play(scenario: Any, **programs: Any) -> None:
    """Run a scenario over images that behave as given."""

    async def whole() -> None:
        images: dict[str, Plan] = {name: Script(main=program) for name, program in programs.items()}
        async with bench(images=images) as on:
            await scenario(on)

    run(whole())


def test_1_bytes_of_a_call_that_timed_out_are_read_by_no_later_call() -> None:
    """A function that never reads its input keeps the first call's bytes in its pipe."""
    seen: list[bytes] = []

    async def late_reader(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await asyncio.sleep(1.5)
        while data := await stdin.read():
            seen.append(data)
            await stdout.write(answer("read"))
        return 0

    async def scenario(on: Bench) -> None:
        function = on.function(image="late", timeout=1)
        with pytest.raises(CallTimeout):
            await on.ask(function, secret="first")
        function = on.function(image="late", timeout=10)
        assert await on.ask(function, secret="second") == "read"
        assert len(seen) == 1
        assert b"first" not in seen[0]

    play(scenario, late=late_reader)


def test_2_an_answer_that_comes_after_its_deadline_reaches_no_later_call() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=1)
        first = Sink()
        with pytest.raises(CallTimeout):
            await on.agent.submit(on.call(function, first, sleep=1.2, echo="late"))
        answers = [await on.ask(function, echo=str(n), sleep=0.3) for n in range(5)]
        assert answers == [str(n) for n in range(5)]
        assert (first.heads, first.body) == ([], b"")

    play(scenario)


@pytest.mark.parametrize("surplus", [b"x", answer("stolen"), b"\n\n garbage"])
def test_3_surplus_after_an_answer_reaches_nobody_and_blocks_nobody(surplus: bytes) -> None:
    async def twice(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        await stdout.write(answer(json.loads(call["body"])["echo"]) + surplus)

    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        assert [await on.ask(function, echo=str(n)) for n in range(5)] == list("01234")
        assert on.driver.counts.prepared == 5  # none served a second call

    play(scenario, twice=function_program(twice))


@pytest.mark.parametrize("said", [answer("stolen"), b"\n\n"])
def test_3_what_waits_unseen_in_the_kernel_shows_when_the_slot_is_taken(said: bytes) -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        await on.ask(function)
        (container,) = on.driver.containers.values()
        container.say(said)
        assert await on.ask(function, echo="own") == "own"
        assert on.driver.counts.prepared == (1 if said.isspace() else 2)

    play(scenario)


def test_3_a_second_answer_between_calls_retires_the_container() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        assert await on.ask(function, echo="a", later=0.5) == "a"
        await asyncio.sleep(1)
        assert on.driver.counts.alive == 0
        assert await on.ask(function, echo="b") == "b"

    play(scenario)


def test_3_white_space_after_an_answer_is_not_surplus() -> None:
    async def airy(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        await stdout.write(answer(json.loads(call["body"])["echo"]))
        stdout.post(b"\r\n")
        await asyncio.sleep(0.01)
        await stdout.write(b"\n \n")

    async def scenario(on: Bench) -> None:
        function = on.function(image="airy")
        for n in range(5):
            assert await on.ask(function, echo=str(n)) == str(n)
            await asyncio.sleep(0.1 * (n % 2))
        assert on.driver.counts.prepared == 1

    play(scenario, airy=function_program(airy))


def test_4_a_log_beyond_its_limit_harms_neither_this_call_nor_the_next() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        assert await on.ask(function, say="n" * (2 << 20), echo="fine") == "fine"
        assert await on.ask(function, say="short", echo="next") == "next"
        first, second = on.records.ended
        marker = b"\n-----max log size 1048576 bytes exceeded, truncating log-----\n"
        assert first.log == b"n" * 1048576 + marker
        assert second.log == b"short"
        assert on.driver.counts.prepared == 1

    play(scenario)


def test_5_what_is_said_after_a_call_is_in_no_log_of_a_call() -> None:
    async def gossip(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        await stderr.write(b"during ")
        await stdout.write(answer(""))
        await asyncio.sleep(0.1)
        await stderr.write(b"after ")

    async def scenario(on: Bench) -> None:
        function = on.function(image="gossip")
        for _ in range(3):
            await on.ask(function)
            await asyncio.sleep(1)
        assert [one.log for one in on.records.ended] == [b"during "] * 3

    play(scenario, gossip=function_program(gossip))


def test_6_after_its_end_nothing_reaches_a_calls_client() -> None:
    async def scenario(on: Bench) -> None:
        function, sinks = on.function(timeout=1), [Sink() for _ in range(3)]
        ends: list[dict[str, Any]] = [{"sleep": 1.1}, {"raw": '{"body":"ha'}, {"exit": 0}]
        for sink, orders in zip(sinks, ends, strict=True):
            with pytest.raises((CallTimeout, ContainerExited, InvalidResponse)):
                await on.agent.submit(on.call(function, sink, **orders))
        before = [(sink.heads, sink.body, sink.completed) for sink in sinks]
        await asyncio.sleep(5)
        assert [(sink.heads, sink.body, sink.completed) for sink in sinks] == before == [([], b"", 0)] * 3

    play(scenario)


def test_7_and_8_an_exit_is_told_to_its_own_call_at_once_and_to_no_other() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        for code in (0, 3):
            await asyncio.sleep(WATCH_S)
            begun = on.clock.monotonic()
            with pytest.raises(ContainerExited, match=f"exit code {code}"):
                await on.ask(function, exit=code)
            assert on.clock.monotonic() == begun
            assert await on.ask(function, echo="next") == "next"
        assert on.statuses() == ["error", "success", "error", "success"]

    play(scenario)


def test_a_client_that_never_sends_its_body_leaves_the_container_untouched() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=4)
        await on.ask(function)
        late = on.call(function, body=Body(length=10, open_end=True))
        with pytest.raises(CallTimeout):
            await on.agent.submit(late)
        assert await on.ask(function, echo="own") == "own"
        assert on.driver.counts.prepared == 1

    play(scenario)


def test_a_body_that_arrives_late_reaches_its_own_call_only() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=4)
        first_body, second_body = Body(length=9, open_end=True), Body(length=16, open_end=True)
        first, second = Sink(), Sink()
        one = asyncio.ensure_future(on.agent.submit(on.call(function, first, body=first_body)))
        await asyncio.sleep(4.5)
        with pytest.raises(CallTimeout):
            await one
        two = asyncio.ensure_future(on.agent.submit(on.call(function, second, body=second_body)))
        await asyncio.sleep(0.5)
        first_body.put(b'{"echo":1')
        await asyncio.sleep(1.5)
        second_body.put(b'{"echo":"second"}')
        second_body.put(b"")
        await two
        assert (first.body, second.body) == (b"", b"second")
        assert on.driver.counts.peak_alive == 1

    play(scenario)


def test_a_container_that_died_before_the_first_byte_costs_the_call_nothing() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        await on.ask(function)
        body = Body(length=16, open_end=True)
        sink = Sink()
        call = asyncio.ensure_future(on.agent.submit(on.call(function, sink, body=body)))
        await settle()
        for container in list(on.driver.containers.values()):
            container.end(Exit(137))
        body.put(b'{"echo":"alive"}')
        body.put(b"")
        await call
        assert sink.body == b"alive"

    play(scenario)


@pytest.mark.parametrize(
    ("ended_s", "served"),
    [(-0.001, True), (0.0, False), (0.001, False), (None, False)],
    ids=["before", "at", "after", "?"],
)
def test_a_call_is_run_again_only_if_its_container_had_ended_before_it(ended_s: float | None, served: bool) -> None:
    """The engine tells of an end late: the call was handed over to a container that was no more."""
    runs = 0

    async def once(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> int | None:
        nonlocal runs
        runs += 1
        if runs == 2:
            return 0
        await stdout.write(answer("alive"))
        return None

    async def scenario(on: Bench) -> None:
        function = on.function(image="once")
        await on.ask(function)
        await asyncio.sleep(1)
        (container,) = on.driver.containers.values()
        container.moment = None if ended_s is None else on.clock.now() + dt.timedelta(seconds=ended_s)
        if served:
            assert await on.ask(function) == "alive"
        else:
            with pytest.raises(ContainerExited):
                await on.ask(function)
        assert (runs, on.driver.counts.prepared) == ((3, 2) if served else (2, 1))

    play(scenario, once=function_program(once))


@pytest.mark.parametrize("dies", [False, True])
def test_a_json_body_that_stops_half_way_leaves_the_container_untouched(dies: bool) -> None:
    """The client goes on after a while; if the container is gone by then, the call takes another one."""

    async def scenario(on: Bench) -> None:
        function = on.function(timeout=10)
        await on.ask(function)
        body, sink = Body(b'{"echo":', length=15, open_end=True), Sink()
        call = asyncio.ensure_future(on.agent.submit(on.call(function, sink, body=body)))
        await asyncio.sleep(1)
        if dies:
            for container in list(on.driver.containers.values()):
                container.end(Exit(137))
        body.put(b'"late"}')
        body.put(b"")
        await call
        assert sink.body == b"late"
        assert on.driver.counts.started == 1 + dies

    play(scenario)


def test_a_json_body_that_never_ends_costs_no_warm_container() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=2)
        await on.ask(function)
        with pytest.raises(CallTimeout):
            await on.agent.submit(on.call(function, body=Body(b'{"echo":', length=15, open_end=True)))
        assert await on.ask(function, echo="next") == "next"
        assert on.driver.counts.started == 1

    play(scenario)
