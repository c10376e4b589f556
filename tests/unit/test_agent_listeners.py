"""Functions that listen, as the agent runs them: over scripted containers, in virtual time."""

from __future__ import annotations

import pytest
from tests.support.agent import Sink, bench

from hearth.contracts.base import Head
from hearth.models.errors import FunctionGone, FunctionRaised
from hearth.testing.script import Pipe, Script


async def requests(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """Answer each request as its body says: a status of the contract, or an exit code."""
    received = b""
    while data := await stdin.read():
        received += data
        while b"\r\n\r\n" in received:
            head, _, rest = received.partition(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
            if len(rest) < length:
                break
            body, received = rest[:length], rest[length:]
            await stderr.write(b"log of " + body)
            if b"exit" in body:
                return 3
            status = 502 if b"raise" in body else 200
            await stdout.write(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
    return 0


IMAGES = {"stream": Script(main=requests)}


async def test_one_container_serves_calls_and_its_errors_in_sequence() -> None:
    async with bench(images=IMAGES) as world:
        function = world.function(image="stream", format="http-stream")
        for number in range(10):
            assert await world.ask(function, n=number) == f'{{"n": {number}}}'
            with pytest.raises(FunctionRaised):
                await world.ask(function, what="raise")
        assert world.driver.counts.started == 1
        assert world.statuses() == ["success", "error"] * 10
        ended = world.records.ended[-1]
        assert ended.log == b'log of {"what": "raise"}'
        assert ended.call.error == 'function failed: log of {"what": "raise"}; see the call\'s log'


async def test_a_function_that_ends_is_replaced() -> None:
    async with bench(images=IMAGES) as world:
        function = world.function(image="stream", format="http-stream")
        for _ in range(3):
            with pytest.raises(FunctionGone):
                await world.ask(function, what="exit")
            assert world.records.ended[-1].call.error.startswith(
                'error receiving function response: container exit code 3: log of {"what": "exit"}'
            )
            assert await world.ask(function, n=1) == '{"n": 1}'
        assert world.driver.counts.started == 4


async def test_a_plain_call_gets_the_answer_as_it_is() -> None:
    async with bench(images=IMAGES) as world:
        function, sink = world.function(image="stream", format="http-stream"), Sink()
        call = world.call(function, sink)
        call.is_plain = True
        await world.agent.submit(call)
        assert sink.heads == [Head(200, [("Content-Length", "2")])]
