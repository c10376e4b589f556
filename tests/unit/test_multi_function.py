"""The test function over real pipes, spoken to through the formats: each order does what its table says."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.protocol_events import a_call, stdio_contract, summarised

from hearth.contracts.base import Head
from hearth.contracts.stdio.codec import End, Event, InvalidOutput

MULTI = Path(__file__).parent.parent / "functions" / "multi.py"
TIMEOUT_S = 20


class Running:
    """The function as a process."""

    def __init__(self, format_name: str, **environment: str) -> None:
        self.contract = stdio_contract(format_name)
        env = {"PATH": os.defpath, "FN_FORMAT": format_name, **environment}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, MULTI], env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr

    def send(self, body: bytes = b"", **call: Any) -> None:
        made = a_call(content_length=len(body), **call)
        encoder = self.contract.encoder(made)
        self.stdin.write(encoder.body(body) + encoder.end())
        self.stdin.flush()
        if not self.contract.hot:
            self.stdin.close()

    def read(self) -> bytes:
        ready, _, _ = select.select([self.stdout], [], [], TIMEOUT_S)
        assert ready, "the function wrote nothing"
        return os.read(self.stdout.fileno(), 65536)

    def answer(self) -> tuple[Head, bytes, bool]:
        decoder = self.contract.decoder(a_call())
        events: list[Event] = []
        while not (events and isinstance(events[-1], End)):
            data = self.read()
            events += decoder.feed(data) if data else decoder.feed_eof()
        head, body, surplus = summarised(events)
        assert head is not None
        assert surplus is not None
        return head, body, surplus

    def call(self, **orders: Any) -> tuple[Head, bytes, bool]:
        self.send(json.dumps(orders).encode())
        return self.answer()


@contextlib.contextmanager
def running(format_name: str, **environment: str) -> Iterator[Running]:
    function = Running(format_name, **environment)
    try:
        yield function
    finally:
        function.process.kill()
        function.process.wait()
        with contextlib.suppress(BrokenPipeError):
            function.stdin.close()
        function.stdout.close()
        function.stderr.close()


@pytest.fixture(params=["default", "http", "json"])
def function(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param) as started:
        yield started


@pytest.fixture(params=["http", "json"])
def hot(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param) as started:
        yield started


def test_a_body_without_orders_comes_back(function: Running) -> None:
    function.send(b"just text \xe2\x82\xac")
    head, body, surplus = function.answer()
    assert (head.status, body, surplus) == (200, b"just text \xe2\x82\xac", False)


def test_it_tells_what_it_received(function: Running) -> None:
    told = json.loads(function.call(tell=True)[1])
    assert told["body"] == '{"tell": true}'
    assert told["env"]["FN_FORMAT"] == function.contract.name
    assert told["pid"] == function.process.pid


def test_many_calls_in_sequence_are_told_apart(hot: Running) -> None:
    bodies = [hot.call(echo=f"call {n}", status=210 + n)[:2] for n in range(5)]
    assert [(head.status, body) for head, body in bodies] == [(210 + n, f"call {n}".encode()) for n in range(5)]


def test_status_and_headers_are_as_ordered(hot: Running) -> None:
    head, body, surplus = hot.call(status=418, headers={"x-a": ["1", "2"], "X-B": "3"}, echo="tea")
    assert (head.status, body, surplus) == (418, b"tea", False)
    assert [field for field in head.headers if field[0].startswith("X-")] == [("X-A", "1"), ("X-A", "2"), ("X-B", "3")]


def test_a_large_body_may_come_in_chunks() -> None:
    with running("http") as function:
        head, body, surplus = function.call(size=300_000, chunked=True, interim=True)
        assert (dict(head.headers), len(body), surplus) == ({}, 300_000, False)


def test_orders_may_stand_in_the_url(hot: Running) -> None:
    hot.send(b'{"echo":"not this"}', url=f"http://h/r/a/b?do={quote(json.dumps({'status': 201}))}&x=1")
    head, body, _ = hot.answer()
    assert (head.status, body) == (201, b'{"echo":"not this"}')


def test_the_answer_may_come_before_the_input_is_read() -> None:
    orders = quote(json.dumps({"unread": True, "echo": "early"}))
    with running("http") as function:
        encoder = function.contract.encoder(a_call(url=f"http://h/x?do={orders}", content_length=10 << 20))
        function.stdin.write(encoder.body(b"x"))
        function.stdin.flush()
        assert function.answer()[1] == b"early"
    with running("default", FN_REQUEST_URL=f"http://h/x?do={orders}") as function:
        assert function.answer()[1] == b"early"


def test_a_pause_in_the_answer_changes_nothing_but_time(hot: Running) -> None:
    assert hot.call(echo="whole", pause_ms=20)[1:] == (b"whole", False)


@pytest.mark.parametrize(("orders", "code"), [({"exit": 3}, 3), ({"exit": 0}, 0), ({"kill": True}, -9)])
def test_it_exits_instead_of_answering(function: Running, orders: dict[str, Any], code: int) -> None:
    function.send(json.dumps(orders).encode())
    assert function.read() == b""
    assert function.process.wait(TIMEOUT_S) == code


def test_it_exits_after_the_answer(function: Running) -> None:
    assert function.call(echo="last", after=7)[1] == b"last"
    assert function.process.wait(TIMEOUT_S) == 7


def test_it_dies_within_the_answer(hot: Running) -> None:
    hot.send(b'{"die":true,"echo":"half of this"}')
    with pytest.raises(InvalidOutput):
        hot.answer()
    assert hot.process.wait(TIMEOUT_S) == 1


def test_it_closes_its_output_and_lives_on(hot: Running) -> None:
    hot.send(b'{"close":true}')
    assert hot.read() == b""
    assert hot.process.poll() is None


def test_garbage_is_no_answer(hot: Running) -> None:
    hot.send(b'{"raw":"printed by mistake\\n"}')
    with pytest.raises(InvalidOutput):
        hot.answer()


def test_surplus_comes_with_the_answer(hot: Running) -> None:
    assert hot.call(echo="x", surplus="more")[1:] == (b"x", True)


def test_late_output_comes_between_calls(hot: Running) -> None:
    assert hot.call(echo="x", later="late", later_ms=300, later_err="late too")[1:] == (b"x", False)
    assert hot.read() == b"late"
    assert os.read(hot.stderr.fileno(), 100) == b"late too"


def test_it_writes_to_stderr_before_it_answers(function: Running) -> None:
    assert function.call(say="hello log", stderr=640, echo="x")[1] == b"x"
    written = b""
    while len(written) < 650:
        written += os.read(function.stderr.fileno(), 1000)
    assert written == b"hello log\n" + (b"n" * 63 + b"\n") * 10


def test_a_response_may_lack_its_length() -> None:
    with running("http") as function:
        function.send(b'{"no_length":true,"echo":"x"}')
        with pytest.raises(InvalidOutput, match="missing content length"):
            function.answer()


def test_it_may_crash_at_start(function: Running) -> None:
    with running(function.contract.name, CRASH_AT_START="9") as crashing:
        assert crashing.process.wait(TIMEOUT_S) == 9
        assert crashing.stderr.read() == b"crashing at start\n"


def test_it_may_print_a_banner_first() -> None:
    with running("json", BANNER="starting up\n") as function:
        assert function.read() == b"starting up\n"
        assert function.call(echo="x")[1] == b"x"
