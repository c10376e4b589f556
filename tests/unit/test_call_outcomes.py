"""What the record and the metrics say of a call's answer: its status, and why the call counts as failed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.agent import Bench, Body, Sink, bench
from tests.support.scrape import Watch
from tests.support.virtual_time import run

from hearth.agent.accepted import StoredBody
from hearth.models.call import Call
from hearth.models.errors import ImagePullFailed
from hearth.telemetry.names import RESPONSES
from hearth.testing.script import Script


def answered(status: int) -> dict[str, Any]:
    """Orders to answer with a status."""
    return {"raw": json.dumps({"body": "x", "protocol": {"status_code": status}}) + "\n"}


async def fail_cold(*pipes: Any) -> int:
    return 3


def ended(orders: dict[str, Any], *, leave_after_s: float = 0.0, **route: Any) -> tuple[Call, Bench, dict[int, float]]:
    """Make one call; its record, and how many answers of each class were counted."""

    async def whole() -> tuple[Call, Bench, dict[int, float]]:
        async with bench(images={"cold": Script(main=fail_cold)}) as on:
            call = on.start(on.function(timeout=3, **route), **orders)
            if leave_after_s:
                await asyncio.sleep(leave_after_s)
                call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        watch = Watch(on.agent.telemetry.metrics)
        moved = {first: watch(name, "a", "/f") for first, name in RESPONSES.items()}
        return on.records.ended[0].call, on, {first: count for first, count in moved.items() if count}

    return run(whole())


@pytest.mark.parametrize(
    ("orders", "route", "record", "counted"),
    [
        ({}, {}, ("success", "", 200), {2: 1}),
        (answered(404), {}, ("success", "", 404), {4: 1}),
        (answered(302), {}, ("success", "", 302), {3: 1}),
        (answered(500), {}, ("error", "function answered 500", 500), {5: 1}),
        (answered(503), {}, ("error", "function answered 503", 503), {5: 1}),
        ({"exit": 1}, {}, ("error", "container exit code 1", 502), {5: 1}),
        ({"sleep": 9}, {}, ("timeout", "timed out after 3 s (timeout of the route)", 504), {5: 1}),
        ({}, {"image": "cold", "format": "default"}, ("error", "container exit code 3", 502), {5: 1}),
    ],
)
def test_a_record_has_the_status_of_the_answer_and_why_it_failed(
    orders: dict[str, Any], route: dict[str, Any], record: tuple[str, str, int], counted: dict[int, int]
) -> None:
    call, on, moved = ended(orders, **route)
    assert (call.status, call.error, call.response_status) == record
    assert moved == counted
    is_success = record[0] == "success"
    assert (on.agent.stats.total.complete, on.agent.stats.total.failed) == (int(is_success), int(not is_success))


def test_the_client_of_a_function_that_answers_500_gets_that_answer() -> None:
    async def whole() -> tuple[int, bytes]:
        async with bench() as on:
            sink = Sink()
            await on.agent.submit(on.call(on.function(), sink, **answered(500)))
            return sink.heads[0].status, sink.body

    assert run(whole()) == (500, b"x")


def test_a_client_that_left_saw_no_status() -> None:
    call, _, moved = ended({"sleep": 2}, leave_after_s=1)
    assert (call.status, call.error, call.response_status) == ("error", "context canceled", 0)
    assert moved == {}


def test_an_async_call_has_the_status_that_a_sync_caller_would_have_received() -> None:
    async def whole() -> list[tuple[str, int]]:
        async with bench() as on:
            function = on.function(type="async")
            for number, orders in enumerate(({}, answered(500), {"exit": 1})):
                record = Call.of(function, f"{number}", on.clock.now(), method="POST", url="", headers={})
                record.payload = json.dumps(orders).encode()
                call = on.agent.accepted_call(function, record)
                assert isinstance(call.body, StoredBody)
                await asyncio.gather(on.agent.submit(call), return_exceptions=True)
            missing = Call.of(function, "3", on.clock.now(), method="POST", url="", headers={})
            await on.agent.record_failure(missing, ImagePullFailed("x", "no such image", 404))
            return [(one.call.status, one.call.response_status) for one in on.records.ended]

    assert run(whole()) == [("success", 200), ("error", 500), ("error", 502), ("error", 404)]


def test_an_answer_that_is_cut_short_keeps_the_status_that_was_sent() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning"

    async def whole() -> Call:
        async def main(stdin: Any, stdout: Any, stderr: Any) -> int:
            await stdin.read()
            await stdout.write(head)
            await asyncio.sleep(1)
            return 1

        async with bench(images={"cut": Script(main=main)}) as on:
            call = on.call(on.function(image="cut", format="http"), body=Body())
            await asyncio.gather(on.agent.submit(call), return_exceptions=True)
            return on.records.ended[0].call

    call = run(whole())
    assert (call.status, call.response_status) == ("error", 200)
