"""The output of functions on the syslog servers of their apps."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.agent import Bench, bench
from tests.support.virtual_time import run

from hearth.aio.clock import SystemClock
from hearth.models.errors import SyslogUnavailable
from hearth.telemetry.app_syslog import Drains, Reach
from hearth.telemetry.metrics import Metrics

TAG = "app_id=A,fn_id=F"
#: Priority, version, time, host, tag, process, message id, no structured data, text.
MESSAGE = re.compile(r"<14>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\S+) (\S+) \d+ (\S+) - (.*)")


def parts(message: bytes) -> tuple[str, str]:
    """The message id and the text of a message; its form is checked."""
    found = MESSAGE.fullmatch(message.decode())
    assert found is not None, message
    host, tag, call_id, text = found.groups()
    assert (host, tag) == (socket.gethostname(), TAG)
    return call_id, text


class Server:
    """A syslog server over a stream: its lines, and a way to break its connections."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while line := await reader.readline():
            self.lines.put_nowait(line.removesuffix(b"\n"))
        writer.close()


@pytest.fixture
async def drains() -> AsyncIterator[Callable[..., Drains]]:
    made: list[Drains] = []

    def make(reach: Reach = "any", metrics: Metrics | None = None) -> Drains:
        made.append(Drains(SystemClock(), metrics or Metrics(), reach))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address of a socket for datagrams, and the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.bind(str(tmp_path / "s"))
        own.setblocking(False)
        yield f"unixgram://{tmp_path}/s", own


def received(own: socket.socket) -> list[tuple[str, str]]:
    """What has come."""
    messages = []
    while True:
        try:
            messages.append(parts(own.recv(65536)))
        except BlockingIOError:
            return messages


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
async def test_a_stream_carries_a_message_on_each_line(
    drains: Callable[..., Drains], tmp_path: Path, scheme: str
) -> None:
    server = Server()
    if scheme == "tcp":
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        url = f"tcp://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    else:
        listener = await asyncio.start_unix_server(server.serve, str(tmp_path / "s"))
        url = f"unix://{tmp_path}/s"
    async with listener:
        drain = await drains().open(url, TAG)
        assert drain is not None
        drain.write(b"one\r\ntw", "C1")
        drain.write(b"o\n\nthree", "C1")
        drain.write(b"between\n")
        drain.close()
        told = [parts(await server.lines.get()) for _ in range(5)]
        assert told == [("C1", "one"), ("C1", "two"), ("C1", ""), ("C1", "three"), ("-", "between")]


async def test_datagrams_carry_a_message_each(drains: Callable[..., Drains]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        drain = await drains("network").open(f"udp://127.0.0.1:{server.getsockname()[1]}", TAG)
        assert drain is not None
        drain.write(b"one\ntwo\n", "C1")
        assert received(server) == [("C1", "one"), ("C1", "two")]


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "tcp://127.0.0.1:99999", "unix:///none/s", "unixgram:///none/s"])
async def test_a_server_that_is_not_there_is_told(drains: Callable[..., Drains], url: str) -> None:
    with pytest.raises(SyslogUnavailable, match=r"^Syslog Unavailable$") as told:
        await drains().open(url, TAG)
    assert told.value.code == 500


async def test_a_server_without_tls_is_none_for_tls(drains: Callable[..., Drains]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        with pytest.raises(SyslogUnavailable):
            await drains().open(f"tcp+tls://127.0.0.1:{listener.sockets[0].getsockname()[1]}", TAG)


async def test_sockets_of_the_machine_are_for_those_who_are_told(
    drains: Callable[..., Drains], datagrams: tuple[str, socket.socket]
) -> None:
    with pytest.raises(SyslogUnavailable):
        await drains("network").open(datagrams[0], TAG)
    assert await drains("off").open(datagrams[0], TAG) is None
    assert await drains().open("", TAG) is None
    assert await drains().open(datagrams[0], TAG) is not None


async def test_a_connection_that_breaks_is_made_again_and_loses_no_line_after(drains: Callable[..., Drains]) -> None:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        drain = await drains().open(f"tcp://127.0.0.1:{listener.sockets[0].getsockname()[1]}", TAG)
        assert drain is not None
        drain.write(b"before\n")
        assert parts(await server.lines.get()) == ("-", "before")
        server.writers[0].transport.abort()
        while len(server.writers) < 2:
            await asyncio.sleep(0)
        drain.write(b"after\n")
        assert parts(await server.lines.get()) == ("-", "after")
        drain.close()  # a server of uvloop ends after its connections


async def test_containers_share_a_connection_until_the_last_ends(drains: Callable[..., Drains]) -> None:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        url = f"tcp://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        shared = drains()
        first, second = await shared.open(url, TAG), await shared.open(url, TAG)
        assert first is not None
        assert second is not None
        first.close()
        second.write(b"still\n")
        assert parts(await server.lines.get()) == ("-", "still")
        assert len(server.writers) == 1
        second.close()
        assert repr(shared) == "<Drains any connections=0>"


async def test_lines_that_nobody_takes_are_counted(
    drains: Callable[..., Drains], datagrams: tuple[str, socket.socket]
) -> None:
    metrics = Metrics()
    drain = await drains(metrics=metrics).open(datagrams[0], TAG)
    assert drain is not None
    datagrams[1].close()
    drain.write(b"lost\nlost\n")
    assert metrics.counter("hearth_syslog_lines_dropped").series().value == 2


# -- by an agent ------------------------------------------------------------------------------------------------------


def play(scenario: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def whole() -> None:
        async with bench(**{"syslog": "any", **options}) as on:
            await scenario(on)

    run(whole())


def test_the_lines_of_a_call_carry_its_id(datagrams: tuple[str, socket.socket]) -> None:
    url, server = datagrams

    async def scenario(on: Bench) -> None:
        function = msgspec.structs.replace(on.function(), syslog_url=url)
        await on.ask(function, say="hello\nworld\n")
        await on.ask(function, say="again\n")
        first, second = (one.call.id for one in on.records.ended)
        tag = f"app_id={function.ref.app_id},fn_id={function.ref.id}"
        messages = [server.recv(65536).decode() for _ in range(3)]
        assert [message.split(" ", 6)[5:] for message in messages] == [
            [first, "- hello"],
            [first, "- world"],
            [second, "- again"],
        ]
        assert all(f" {tag} " in message for message in messages)
        assert [one.log for one in on.records.ended] == [b"hello\nworld\n", b"again\n"]

    play(scenario)


def test_a_call_fails_if_the_server_of_its_app_is_away() -> None:
    async def scenario(on: Bench) -> None:
        function = msgspec.structs.replace(on.function(), syslog_url="unixgram:///none/s")
        with pytest.raises(SyslogUnavailable):
            await on.ask(function)
        assert on.statuses() == ["error"]
        assert on.driver.counts.started == 0
        assert await on.ask(on.function("/other"), echo="fine") == "fine"

    play(scenario)


def test_a_node_that_serves_no_syslog_runs_the_calls() -> None:
    async def scenario(on: Bench) -> None:
        function = msgspec.structs.replace(on.function(), syslog_url="unixgram:///none/s")
        assert await on.ask(function, echo="fine") == "fine"

    play(scenario, syslog="off")
