"""Where log lines go: every destination, every way in which one can be unavailable; none may block its callers."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import resource
import socket
import stat
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.support.waiting import until
from typer.testing import CliRunner

from hearth.agent.call import LineLog
from hearth.cli.main import app
from hearth.telemetry import logs, redaction, sinks

LINE = re.compile(r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z" level=(\w+) msg=(".*?"|\S+)( [a-z_]+=(".*?"|\S+))*')


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Leave the log of the process as it was."""
    yield
    logs.reset()


Stderr = pytest.CaptureFixture[str]


def told(where: Path | Stderr) -> str:
    """What was written to a file, or to stderr."""
    logs.close()
    return where.read_text() if isinstance(where, Path) else where.readouterr().err


def line_with(mark: str, text: str) -> str:
    """Return the one line that holds ``mark``: other tests of this process may log to the same stderr."""
    (line,) = [line for line in text.splitlines() if mark in line]
    return line


def test_stderr_gets_logfmt(capfd: Stderr) -> None:
    mark = uuid.uuid4().hex
    logs.configure("debug")
    logs.get_logger("x").info("container started", image="a b", call_id=mark, ok=True)
    line = line_with(mark, told(capfd))
    assert LINE.fullmatch(line)
    assert line.endswith(f'level=info msg="container started" call_id={mark} image="a b" ok=true')


def test_lines_may_be_json(capfd: Stderr) -> None:
    mark = uuid.uuid4().hex
    logs.configure("debug", as_json=True)
    logs.get_logger("x").info('say "hi"', call_id=mark, ok=True, count=3, odd="a\ud800b", path=Path("/a"))
    line = json.loads(line_with(mark, told(capfd)))
    assert [*line][:3] == ["time", "level", "msg"]
    assert (line["level"], line["msg"], line["ok"], line["count"], line["path"]) == ("info", 'say "hi"', True, 3, "/a")
    assert line["odd"] == "a\\ud800b"


@pytest.mark.parametrize("shown", [True, False])
def test_output_of_functions_may_be_left_out(capfd: Stderr, shown: bool) -> None:
    logs.configure("debug", with_functions=shown)
    mark = uuid.uuid4().hex
    LineLog(lambda: {"user_log": True}).write(f"{mark}\n".encode())
    assert (mark in told(capfd)) is shown


def test_a_file_is_appended_to_and_anybody_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    logs.configure("info", f"file://{path}")
    logs.get_logger("x").info("one")
    assert re.fullmatch(r"before\n.*msg=one\n", told(path))
    made = tmp_path / "made"
    logs.configure("info", f"file://{made}")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(made.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("udp://host/path", "invalid logging location, defaulting to stderr"),
        ("file://host/path", "invalid logging location, defaulting to stderr"),
        ("udp://", "invalid logging location, defaulting to stderr"),
        ("http://host", "unknown logging location scheme, defaulting to stderr"),
        ("/var/log/x", "unknown logging location scheme, defaulting to stderr"),
        ("tcp://127.0.0.1:1", "unable to connect to syslog, defaulting to stderr"),
        ("udp://no.such.host.invalid:514", "unable to connect to syslog, defaulting to stderr"),
        ("file:///no/such/folder/log", "cannot open file, defaulting to stderr"),
        ("udp://[::1", "could not parse logging URI, defaulting to stderr"),
        ("udp://host:port", "could not parse logging URI, defaulting to stderr"),
    ],
)
def test_an_unavailable_destination_is_logged_and_stderr_is_used(capfd: Stderr, destination: str, message: str) -> None:
    mark = uuid.uuid4().hex
    logs.configure("info", destination)
    logs.get_logger("x").info(mark)
    written = told(capfd)
    assert f'level=error msg="{message}"' in line_with("defaulting to stderr", written)
    assert f"level=info msg={mark}" in line_with(mark, written)


def test_an_unknown_level_is_info(capfd: Stderr) -> None:
    mark = uuid.uuid4().hex
    logs.configure("loud")
    logs.get_logger("x").debug(mark)
    written = told(capfd)
    assert 'level=warning msg="Could not parse log level, setting to INFO"' in line_with("log level", written)
    assert mark not in written


@pytest.mark.parametrize("scheme", ["udp://", ""])
def test_datagrams_to_syslog(capfd: Stderr, scheme: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        mark = uuid.uuid4().hex
        logs.configure("debug", f"{scheme}localhost:{server.getsockname()[1]}", "tag")
        if not scheme:
            assert "No scheme on logging url, adding udp://" in server.recv(4096).decode()
        log = logs.get_logger("x")
        for level, severity in {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}.items():
            getattr(log, level)(mark, n=1)
            text = server.recv(4096).decode()
            assert re.fullmatch(rf"<{8 + severity}>\S+ \S+ tag\[{os.getpid()}\]: time=.* msg={mark} n=1", text)
    assert mark not in told(capfd)


def test_a_syslog_server_that_goes_and_comes_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        logs.configure("info", f"tcp://127.0.0.1:{address[1]}")
        log = logs.get_logger("x")
        connection, _ = server.accept()
        with connection, connection.makefile() as lines:
            log.info("first")
            assert "msg=first" in lines.readline()
    log.info("lost")
    assert until(lambda: logs.dropped() > 0)
    with socket.create_server(address) as server:
        server.settimeout(0.05)

        def is_back() -> bool:
            log.info("again")
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                with connection, connection.makefile() as lines:
                    return "msg=again" in lines.readline()
            return False

        assert until(is_back)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Further descriptors have numbers beyond those that a set of ``select`` can hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_node_with_many_open_files_writes_to_syslog() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        logs.configure("info", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        connection, _ = server.accept()
        with connection, connection.makefile() as lines:
            logs.get_logger("x").info("hello")
            connection.settimeout(30)
            assert "msg=hello" in lines.readline()


def test_a_pipe_that_is_full_and_never_waits_is_waited_for() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    file = CountingFile(into, "wb")
    with open(out, "rb", buffering=0) as end:
        writer = sinks.Writer(sinks.File(file))
        text = "x" * (1 << 20)
        writer.put("info", text)
        assert until(lambda: file.refused > 0)
        assert not until(lambda: file.refused > 1, limit_s=0.1), "asked again before there was room"
        read = 0
        while read <= len(text):
            read += len(end.read(1 << 16))
        writer.close()


class CountingFile(io.FileIO):
    """Counts how often nothing could be written."""

    refused = 0

    def write(self, data: Any) -> Any:
        written = super().write(data)
        self.refused += written is None
        return written


def test_a_destination_that_takes_nothing_holds_nobody_up() -> None:
    class Stuck:
        def __init__(self) -> None:
            self.free = threading.Event()

        def write(self, lines: list[sinks.Line]) -> int:
            self.free.wait()
            return 0

        def close(self) -> None: ...

    stuck = Stuck()
    writer = sinks.Writer(stuck)
    for _ in range(12_000):
        writer.put("info", "x")
    assert 1_500 < writer.dropped <= 2_000
    stuck.free.set()
    writer.close()


def test_a_command_leaves_the_log_of_its_process_as_it_was() -> None:
    assert CliRunner().invoke(app, ["prune", "--help"]).exit_code == 0
    assert not structlog.is_configured()
    assert logs.log_levels.debug
    assert not [one for one in logging.getLogger().handlers if type(one).__module__ == logs.__name__]


def test_what_libraries_log_has_the_same_form(capfd: Stderr) -> None:
    logs.configure()
    mark = uuid.uuid4().hex
    logging.getLogger("some.library").warning("odd %s", mark)
    line = line_with(mark, told(capfd))
    assert line.endswith(f' level=warning msg="odd {mark}" logger=some.library')


def test_people_get_colours() -> None:
    line = logs.render_for_people(None, "info", {"event": "hello", "level": "info", "time": "T", "b": 1, "a": "x y"})
    assert re.fullmatch(r'\x1b\[36mINFO\x1b\[0m\[T\] hello +\x1b\[36ma\x1b\[0m="x y" \x1b\[36mb\x1b\[0m=1', line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to postgres://me:pw1@host/db now", "to postgres://me:***@host/db now"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("redis://:pw2@host", "redis://:***@host"),
        ("nothing", "nothing"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, expected: str) -> None:
    assert redaction.redact(text) == expected


def test_what_is_known_to_be_secret_is_hidden_even_escaped(capfd: Stderr) -> None:
    redaction.hide(['se"cr\\et'])
    logs.configure()
    mark = uuid.uuid4().hex
    logs.get_logger("x").info(mark, value='a se"cr\\et b')
    assert line_with(mark, told(capfd)).endswith(f'msg={mark} value="a *** b"')
