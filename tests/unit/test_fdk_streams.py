"""Handlers that yield: their pieces are answered one by one, and each way to stop stops the handler."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import hearth_fdk
from hearth_fdk import Answer, Context, Event, sse
from hearth_fdk.context import BadInput, Call
from hearth_fdk.serving import HttpOutput, JsonOutput, Runner, StreamBroken
from hearth_fdk.testing import call


def words(body: str) -> Iterator[str]:
    yield from body.split()


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        await asyncio.sleep(0)
        yield number


def test_generators_and_async_generators_stream() -> None:
    done = call(words, "a b c")
    assert (done.pieces, done.headers["Content-Type"]) == ([b"a", b"b", b"c"], ["text/plain; charset=utf-8"])
    done = call(numbers)
    assert (done.pieces, done.headers["Content-Type"]) == ([b"0\n", b"1\n", b"2\n"], ["application/x-ndjson"])
    assert call(words, "").body == b""


def test_what_is_set_before_the_first_piece_is_in_the_head() -> None:
    def late(ctx: Context) -> Iterator[bytes]:
        ctx.set_status(202)
        ctx.set_header("Content-Type", "image/png")
        yield b"\x89"
        ctx.set_status(500)

    done = call(late)
    assert (done.status, done.headers["Content-Type"], done.body) == (202, ["image/png"], b"\x89")

    async def by_answer() -> Answer:
        return Answer(numbers(), 201, {"X-A": "b"})

    done = call(by_answer)
    assert (done.status, done.headers["X-A"], done.body) == (201, ["b"], b"0\n1\n2\n")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_error_before_the_first_piece_is_an_ordinary_answer(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refuses(body: str) -> Iterator[str]:
        if body == "bad":
            raise BadInput("no good")
        raise RuntimeError("on purpose")
        yield ""

    async def refuses_later(body: str) -> AsyncIterator[str]:
        for piece in refuses(body):
            yield piece

    handler = refuses if kind == "sync" else refuses_later
    assert (call(handler, "bad").status, call(handler, "", raise_errors=False).status) == (400, 500)
    assert "RuntimeError: on purpose" in capsys.readouterr().err


def breaks(closed: list[str]) -> Any:
    def handler(body: str) -> Iterator[str]:
        try:
            yield "a"
            raise BadInput("too late to be told")
        finally:
            closed.append("closed")

    return handler


def test_an_error_in_the_middle_breaks_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    closed: list[str] = []
    done = call(breaks(closed), "", raise_errors=False)
    assert (done.status, done.body, done.is_broken, closed) == (200, b"a", True, ["closed"])
    assert "BadInput: too late to be told" in capsys.readouterr().err
    with pytest.raises(BadInput):
        call(breaks([]), "")


def written(handler: Any, kind: type[HttpOutput] | type[JsonOutput], method: str = "POST") -> bytes:
    """What goes to the platform."""
    ours, theirs = os.pipe()
    try:
        with Runner(handler, {}) as runner:
            runner.answer(Call(method=method, body=b"a b"), kind(theirs))
    except StreamBroken:
        pass
    finally:
        os.close(theirs)
    with open(ours, "rb") as pipe:
        return pipe.read()


def test_the_format_http_sends_chunks() -> None:
    head, _, body = written(words, HttpOutput).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    assert written(words, HttpOutput, "HEAD").endswith(b"\r\n\r\n")
    assert written(lambda: Answer(iter(["x"]), 204), HttpOutput).count(b"\r\n\r\n") == 1
    assert written(breaks([]), HttpOutput).endswith(b"1\r\na\r\n")  # no end


def test_the_format_json_puts_the_pieces_together() -> None:
    assert b'"body": "ab"' in written(words, JsonOutput)
    assert b'"status_code": 500' in written(breaks([]), JsonOutput)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_platform_that_reads_no_more_stops_the_handler(tmp_path: Path, kind: str) -> None:
    """Its pieces fill the pipe, so the handler waits; once nobody can read it, its clean-up runs."""
    program = tmp_path / "func.py"
    program.write_text(
        "from hearth_fdk import function\n@function\n"
        f"{kind} endless():\n    try:\n        while True:\n            yield b'x' * 100_000\n"
        "    finally:\n        print('stopped')\n"
    )
    library = str(Path(hearth_fdk.__file__).parents[1])
    running = subprocess.Popen(
        [sys.executable, "-m", "hearth_fdk", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": library, "FN_FORMAT": "http"},
    )
    assert running.stdin is not None
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdin.write(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    running.stdin.flush()
    assert running.stdout.read(10) == b"HTTP/1.1 2"
    running.stdout.close()
    assert b"stopped" in running.stderr.read()
    running.stdin.close()
    running.stderr.close()
    assert running.wait() != 0


def test_events_are_written_as_browsers_read_them() -> None:
    def events() -> Iterator[Any]:
        yield "two\r\nlines"
        yield {"a": 1}
        yield Event("x", event="tick", id="7", retry_ms=500)
        yield Event(retry_ms=9)

    done = call(lambda: sse(events()))
    assert (
        done.text
        == 'data: two\ndata: lines\n\ndata: {"a": 1}\n\nevent: tick\nid: 7\nretry: 500\ndata: x\n\nretry: 9\n\n'
    )
    assert done.headers["Content-Type"] == ["text/event-stream; charset=utf-8"]
    assert call(lambda: sse(numbers())).pieces == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]
    with pytest.raises(ValueError, match="must be one line"):
        Event(id="a\nb")
