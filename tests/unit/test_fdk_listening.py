"""The kit on a socket: requests become calls, and what a handler does becomes an answer on the connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hearth_fdk import Answer, BadInput, Context
from hearth_fdk.context import Call
from hearth_fdk.framing import FramingError
from hearth_fdk.listening import ClientGone, LogFrame, StreamOutput, StreamReader
from hearth_fdk.serving import Runner, StreamBroken

HTTP = (
    b"POST /call HTTP/1.1\r\nHost: localhost\r\nFn-Call-Id: 01A\r\nFn-Deadline: 2026-01-02T03:04:35Z\r\n"
    b"Content-Length: 2\r\nFn-Intent: httprequest\r\nFn-Http-Method: PUT\r\nFn-Http-Request-Url: http://h/r/a/f?x=1\r\n"
    b"Content-Type: text/plain\r\nFn-Http-H-X-A: 1\r\nfn-http-h-x-a: 2\r\nFn-Http-H-Content-Length: 2\r\n"
    b"Fn-Http-H-Fn-Call-Id: forged\r\n\r\nhi"
)
PLAIN = b"POST /call HTTP/1.1\r\nFn-Call-Id: 01B\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


def a_call(data: bytes = HTTP) -> Call:
    (call,) = StreamReader().feed(data)
    return call


def test_a_request_of_a_client_is_read_from_its_marks() -> None:
    call = a_call()
    assert (call.call_id, call.method, call.request_url) == ("01A", "PUT", "http://h/r/a/f?x=1")
    assert (call.body, call.deadline, call.is_plain) == (b"hi", "2026-01-02T03:04:35Z", False)
    assert {name: call.headers.all(name) for name in call.headers} == {
        "Content-Type": ["text/plain"],
        "X-A": ["1", "2"],
        "Content-Length": ["2"],
        "Fn-Call-Id": ["forged"],
    }


def test_a_plain_request_keeps_its_headers() -> None:
    call = a_call(PLAIN)
    assert (call.call_id, call.method, call.body, call.is_plain) == ("01B", "POST", b"hi", True)
    assert dict(call.headers) == {"X-A": "1"}


def test_requests_are_cut_out_of_whatever_arrives() -> None:
    reader, calls = StreamReader(), []
    for byte in HTTP + PLAIN:
        calls += reader.feed(bytes([byte]))
    assert [call.call_id for call in calls] == ["01A", "01B"]
    assert reader.is_idle
    with pytest.raises(FramingError):
        StreamReader().feed(b"nonsense\r\n\r\n")


def answered(handler: Callable[..., Any], data: bytes = HTTP) -> bytes:
    """Return what a handler's answer is on the wire."""
    ours, theirs = socket.socketpair()
    pieces = []

    def read() -> None:
        while piece := ours.recv(65536):
            pieces.append(piece)

    reading = threading.Thread(target=read)
    reading.start()
    call = a_call(data)
    with theirs, Runner(handler, {}) as runner:
        runner.answer(call, StreamOutput(theirs.sendall, is_plain=call.is_plain))
    reading.join()
    ours.close()
    return b"".join(pieces)


def told(ctx: Context, body: str) -> Answer:
    return Answer(body, 404, {"X-A": "1", "Content-Type": "text/x"})


def test_status_and_headers_are_marked_for_a_client() -> None:
    begin = b"HTTP/1.1 200 \r\nFn-Http-Status: 404\r\n"
    end = b"X-A: 1\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nhi"
    assert answered(told) == begin + b"Fn-Http-H-" + end
    assert answered(told, PLAIN) == begin + end


def fails(body: str) -> str:
    raise ValueError(body)


def refuses(body: str) -> str:
    raise BadInput("bad")


@pytest.mark.parametrize(
    ("handler", "data", "wire", "status"),
    [(fails, HTTP, 200, 500), (fails, PLAIN, 502, 500), (refuses, HTTP, 200, 400), (refuses, PLAIN, 200, 400)],
)
def test_an_error_is_the_clients_status_and_else_the_platforms(
    handler: Callable[..., Any], data: bytes, wire: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    head = answered(handler, data)
    assert head.startswith(b"HTTP/1.1 %d " % wire)
    assert b"\r\nFn-Http-Status: %d\r\n" % status in head
    assert ("ValueError: hi" in capsys.readouterr().err) is (handler is fails)


def pieces(body: str) -> Iterator[str]:
    yield "ab"
    yield "c"


def test_a_generator_is_answered_in_chunks() -> None:
    head, _, body = answered(pieces).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


def test_a_generator_for_a_head_request_ends_at_once() -> None:
    closed = []

    def endless(body: str) -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append(True)

    assert answered(endless, HTTP.replace(b"PUT", b"HEAD")).endswith(b"\r\n\r\n0\r\n\r\n")
    assert closed == [True]


def test_a_generator_that_fails_after_its_head_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(body: str) -> Iterator[str]:
        yield "x"
        raise ValueError("why")

    ours, theirs = socket.socketpair()
    with ours, theirs, Runner(broken, {}) as runner, pytest.raises(StreamBroken):
        runner.answer(a_call(), StreamOutput(theirs.sendall, is_plain=False))
    assert "why" in capsys.readouterr().err


def test_a_generator_is_closed_when_the_client_has_gone(capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    def endless(body: str) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            closed.append(True)

    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, Runner(endless, {}) as runner, pytest.raises(ClientGone):
        runner.answer(a_call(), StreamOutput(theirs.sendall, is_plain=False))
    assert closed == [True]
    assert capsys.readouterr().err == ""


def test_the_log_of_a_request_is_marked_if_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    LogFrame({"FN_LOGFRAME_NAME": "01", "FN_LOGFRAME_HDR": "Fn-Call-Id"}).mark(a_call())
    LogFrame({"FN_LOGFRAME_NAME": "02", "FN_LOGFRAME_HDR": "x-a"}).mark(a_call(PLAIN))
    LogFrame({"FN_LOGFRAME_NAME": "03", "FN_LOGFRAME_HDR": "X-Other"}).mark(a_call())
    LogFrame({"FN_LOGFRAME_NAME": "04"}).mark(a_call())
    assert capsys.readouterr().err == "\n01=01A\n\n02=1\n"


PROGRAM = "from hearth_fdk import function\n@function\ndef f(body: str) -> str:\n    return body * 2\n"


def program(folder: Path, listener: str) -> subprocess.Popen[str]:
    (folder / "func.py").write_text(PROGRAM)
    environment = {**os.environ, "FN_FORMAT": "http-stream", "FN_LISTENER": listener}
    command = [sys.executable, "-m", "hearth_fdk", "func.py"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_program_serves_one_connection_after_another(tmp_path: Path) -> None:
    for left in ("lsnr.sock", "phonylsnr.sock"):  # of a run before
        (tmp_path / left).write_text("x")
    with program(tmp_path, f"unix:{tmp_path}/lsnr.sock") as running:
        try:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as connection:
                    while True:
                        try:
                            connection.connect(str(tmp_path / "lsnr.sock"))
                        except OSError:
                            assert running.poll() is None
                            continue
                        break
                    for _ in range(2):
                        connection.sendall(HTTP)
                        assert connection.recv(65536).endswith(b"\r\n\r\nhihi")
            assert os.readlink(tmp_path / "lsnr.sock") == "phonylsnr.sock"
            assert (tmp_path / "phonylsnr.sock").stat().st_mode & 0o777 == 0o666
        finally:
            running.kill()


@pytest.mark.parametrize("listener", ["", "/tmp/s", "unix:", "unix:/no/such/folder/s"])
def test_a_program_without_a_socket_says_so(tmp_path: Path, listener: str) -> None:
    with program(tmp_path, listener) as running:
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert said.startswith(f"FN_LISTENER={listener}: ")
