"""A function that writes more than one answer to a call, or reads less than all of it, and the calls that follow."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.agent import WATCH_S, Bench, Body, Sink, answer, bench, function_program
from tests.support.virtual_time import run

from hearth.testing.script import Pipe, Script, Step
from hearth.testing.scripted_driver import FakeDriver

PROVEN = 6


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver does not see what a container has read."""
    capabilities = dataclasses.replace(FakeDriver.capabilities, unread_input=False)
    monkeypatch.setattr(FakeDriver, "capabilities", capabilities)
    monkeypatch.setattr(Pipe, "unread", lambda self: None)


def play(scenario: Any, program: Any, **script: Any) -> None:
    async def whole() -> None:
        async with bench(images={"twice": Script(main=program, **script)}) as on:
            await scenario(on)

    run(whole())


def answers_twice(after_s: float | None, calls: int = 0) -> Any:
    """Writes a second answer, in the same write or later, before it reads again; the first so many calls get one."""
    answered = 0

    async def behave(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        nonlocal answered
        answered += 1
        own = answer(json.loads(call["body"])["echo"])
        await stdout.write(own if answered <= calls or after_s is not None else own + answer("stolen"))
        if answered > calls and after_s is not None:
            await asyncio.sleep(after_s)
            await stdout.write(answer("stolen"))

    return function_program(behave)


async def each_gets_its_own(on: Bench) -> None:
    function = on.function(image="twice")
    answers = [await on.ask(function, echo=f"for-{number}") for number in range(10)]
    assert answers == [f"for-{number}" for number in range(10)]


delays = st.floats(0, 0.3)


@settings(max_examples=40, deadline=None)
@given(after_s=delays)
def test_no_call_gets_an_answer_that_was_written_before_it_was_read(after_s: float) -> None:
    play(each_gets_its_own, answers_twice(after_s))


@pytest.mark.parametrize("after_s", [0, 0.0001, 0.001, 0.003, 0.0049])
@pytest.mark.usefixtures("blind")
def test_a_driver_that_cannot_see_what_is_read_catches_what_comes_within_5_ms(after_s: float) -> None:
    play(each_gets_its_own, answers_twice(after_s))


def test_a_proven_container_is_given_up_when_it_answers_what_it_has_not_read() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        for number in range(PROVEN):
            assert await on.ask(function, echo=str(number)) == str(number)
            await asyncio.sleep(WATCH_S)
        assert on.driver.counts.started == 1
        (container,) = on.driver.containers.values()
        own = on.start(function, echo="own")
        await asyncio.sleep(0.01)
        container.say(answer("stolen"))
        assert await own == "own"
        assert on.driver.counts.started == 2

    async def slow_reader(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        received, calls = b"", 0
        while True:
            if calls == PROVEN:
                await asyncio.sleep(0.05)  # it does not read the next call at once
            if not (data := await stdin.read()):
                return 0
            received += data
            if b"\n\n" in received:
                text, _, received = received.partition(b"\n\n")
                await stdout.write(answer(json.loads(json.loads(text)["body"])["echo"]))
                calls += 1

    play(scenario, slow_reader)


@pytest.mark.parametrize("after_s", [None, 0.5], ids=["with its answer", "between calls"])
@pytest.mark.usefixtures("blind")
def test_a_function_that_wrote_surplus_once_stays_on_probation_in_all_its_containers(after_s: float | None) -> None:
    """Where nobody sees what is read, only the watch can tell; it is not over after the first answers."""

    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        assert await on.ask(function, echo="first") == "first"
        await asyncio.sleep(1)
        assert on.driver.counts.alive == 0
        for number in range(20):
            assert await on.ask(function, echo=str(number)) == str(number)

    first = answers_twice(after_s)
    later = answers_twice(0.004, calls=12)

    async def program(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        nonlocal first
        mine, first = first, later
        return int(await mine(stdin, stdout, stderr))

    play(scenario, program)


def test_the_answer_does_not_wait_for_the_watch() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        for _ in range(20):
            begun = on.clock.monotonic()
            await on.ask(function, echo="x", sleep=0)
            assert on.clock.monotonic() == begun
            await asyncio.sleep(WATCH_S)

    play(scenario, answers_twice(0, calls=100))


def test_a_proven_container_is_offered_at_once() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        for _ in range(PROVEN):
            await on.ask(function, echo="x")
            await asyncio.sleep(WATCH_S)
        begun = on.clock.monotonic()
        for _ in range(20):
            await on.ask(function, echo="x")
        assert (on.clock.monotonic(), on.driver.counts.started) == (begun, 1)

    play(scenario, answers_twice(0, calls=100))


@pytest.mark.parametrize("size", [10, 70_000, 400_000])
def test_a_body_of_any_size_moves_whole_with_its_call(size: int) -> None:
    """The function writes the stray answer while the pipe and its queue hold what they can of the next body."""

    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        pad = "x" * size
        for number in range(4):
            body = json.dumps({"echo": f"{number}", "pad": pad}).encode()
            sink = Sink()
            await on.agent.submit(on.call(function, sink, body=Body(body[:7], body[7:])))
            assert sink.body == b"%d %d" % (number, size)

    async def behave(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        orders = json.loads(call["body"])
        await stdout.write(answer(f"{orders['echo']} {len(orders['pad'])}"))
        await asyncio.sleep(0.1)
        await stdout.write(answer("stolen"))

    play(scenario, function_program(behave))


def test_a_body_that_is_still_coming_moves_with_what_was_read_of_it() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="twice", format="http")
        for _ in range(PROVEN):
            await on.agent.submit(on.call(function, body=Body(b"x")))
            await asyncio.sleep(WATCH_S)
        body, sink = Body(b"1" * 1000, length=4000, open_end=True), Sink()
        call = asyncio.ensure_future(on.agent.submit(on.call(function, sink, body=body)))
        await asyncio.sleep(0.01)
        body.put(b"2" * 1000)
        await asyncio.sleep(0.01)
        (container,) = on.driver.containers.values()
        container.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
        await asyncio.sleep(0.01)
        body.put(b"3" * 2000)
        body.put(b"")
        await call
        assert sink.body == b"1" * 1000 + b"2" * 1000 + b"3" * 2000
        assert on.driver.counts.started == 2

    async def echo_http(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        for number in itertools.count():
            if number == PROVEN:
                await asyncio.sleep(1000)
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stdin.read()
            head, _, body = received.partition(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += await stdin.read()
            await stdout.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, body))
        return 0

    play(scenario, echo_http)


def test_input_that_was_not_read_retires_the_container() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        sink = Sink()
        await on.agent.submit(on.call(function, sink, body=Body(b"x" * 5000)))
        assert sink.body == b"unread"
        await asyncio.sleep(WATCH_S)
        assert on.driver.counts.alive == 0

    async def ignores_the_body(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await stdin.read(100)
        await stdout.write(answer("unread"))
        await asyncio.sleep(1000)
        return 0

    play(scenario, ignores_the_body)


def test_line_ends_that_json_functions_leave_in_their_input_are_no_reason_to_retire() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="twice")
        for number in range(10):
            assert await on.ask(function, echo=str(number)) == str(number)
        assert on.driver.counts.started == 1

    async def stops_at_the_brace(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        text = b""
        while byte := await stdin.read(1):
            text += byte
            if text.endswith(b"\n}\n}"):
                await stdout.write(answer(json.loads(json.loads(text)["body"])["echo"]))
                await asyncio.sleep(0.01)
                text = b""
        return 0

    play(scenario, stops_at_the_brace)


def test_a_lease_in_which_nothing_passed_leaves_a_new_container_new() -> None:
    """Its banner may still come, and its failure to start is still told."""

    async def scenario(on: Bench) -> None:
        function = on.function(image="twice", timeout=2)
        late = asyncio.ensure_future(on.agent.submit(on.call(function, body=Body(length=10, open_end=True))))
        await asyncio.sleep(0.1)
        late.cancel()
        await asyncio.wait([late])
        (container,) = on.driver.containers.values()
        container.say(b"banner\n")
        await asyncio.sleep(0.1)
        assert await on.ask(function, echo="own") == "own"
        assert on.driver.counts.started == 1

    play(scenario, answers_twice(0, calls=100), start=Step())
