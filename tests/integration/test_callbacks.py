"""Records that are sent to receivers which are slow, close, lie, redirect, or have an address that is not public."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.types import Receive, Scope, Send
from tests.support.tls import Authority

from hearth.access.base import NO_SECRET_SOURCE
from hearth.aio.clock import SystemClock
from hearth.models.call import Call
from hearth.models.destination import CALLBACK, DEPTH
from hearth.models.errors import InternalError
from hearth.models.secret import SecretValues
from hearth.server.callbacks import CallbackFailed, Callbacks
from hearth_fdk import is_signed

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
BODY = b'{"call": {}}'
OK = b"HTTP/1.1 204 No Content\r\n\r\n"

#: Handles a connection once its request was read.
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Keys:
    """Secrets of an app, as they are stored now."""

    def __init__(self, **values: str) -> None:
        self.stored = values

    async def values(self, app_name: str, app_id: str, names: Any) -> SecretValues:
        missing = [name for name in names if name not in self.stored]
        if missing:
            return await NO_SECRET_SOURCE.values(app_name, app_id, missing)
        return SecretValues({name: self.stored[name] for name in names}, dict.fromkeys(names, "1"))


class Receiver:
    """A server on a port of loopback that keeps what it received."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.addresses: list[str] = []
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
            self.addresses.append(writer.get_extra_info("sockname")[0])
            self.received.append((headers, await reader.readexactly(int(headers["content-length"]))))
            await self.behave(reader, writer)
        writer.close()


def answering(data: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return behave


@contextlib.asynccontextmanager
async def receiving(
    behave: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    receiver = Receiver(behave)
    server = await asyncio.start_server(receiver, host, 0, family=socket.AF_INET, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


@contextlib.asynccontextmanager
async def callbacks(**options: Any) -> AsyncIterator[Callbacks]:
    async def nothing(app_name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    given: dict[str, Any] = {"secrets": Keys(CALLBACK_KEY="k"), "call_route": nothing, "allowed": LOOPBACK, **options}
    made = Callbacks(clock=SystemClock(), **given)
    try:
        yield made
    finally:
        await made.close()


def callback(url: str) -> Call:
    call = Call(id="01C-callback", app_name="app", path="callback:/f", format=CALLBACK, url=url, payload=BODY)
    call.headers = {DEPTH: ["1"]}
    return call


async def test_a_record_is_signed_with_the_keys_of_its_app() -> None:
    keys = Keys(CALLBACK_KEY="new")
    async with receiving(answering(OK)) as receiver, callbacks(secrets=keys) as made:
        call = callback(f"http://127.0.0.1:{receiver.port}/x?y")
        assert await made.send(call) == 204
        keys.stored["CALLBACK_KEY_OLD"] = "old"
        await made.send(call)
        (first, body), (second, _) = receiver.received
        assert body == BODY
        assert first["hearth-call-id"] == "01C-callback"
        assert first["content-type"] == "application/json"
        assert [is_signed(body, first["hearth-signature"], key) for key in ("new", "old")] == [True, False]
        assert [is_signed(body, second["hearth-signature"], key) for key in ("new", "old")] == [True, True]
        keys.stored.clear()
        with pytest.raises(CallbackFailed, match="app app has no secret CALLBACK_KEY"):
            await made.send(call)
        assert len(receiver.received) == 2


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "the destination answered 500"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "answered 302"),
        (b"", "ServerDisconnectedError"),
        (b"HTTP/1.1 2", "ServerDisconnectedError|Response|Bad status"),
        (b"nonsense\r\n\r\n", "Bad status line|BadStatusLine|BadHttpMessage|Expected HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000, "Got more than|LineTooLong|ClientResponseError|Disconnected"),
    ],
    ids=["500", "redirect", "closes", "closes in the head", "no http", "endless head"],
)
async def test_a_receiver_that_fails_is_reported(answer: bytes, problem: str) -> None:
    async with receiving(answering(answer)) as receiver, callbacks() as made:
        with pytest.raises(CallbackFailed, match=problem):
            await made.send(callback(f"http://127.0.0.1:{receiver.port}/"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n" + b"x" * 1_000_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 100_000,
    ],
    ids=["huge", "shorter than it says", "endless"],
)
async def test_nothing_but_the_status_of_an_answer_counts(answer: bytes) -> None:
    async with receiving(answering(answer)) as receiver, callbacks() as made:
        assert await made.send(callback(f"http://127.0.0.1:{receiver.port}/")) == 200


async def test_a_receiver_that_does_not_answer_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with receiving(hang) as receiver, callbacks(timeout_s=0.05) as made:
        with pytest.raises(CallbackFailed, match="TimeoutError"):
            await made.send(callback(f"http://127.0.0.1:{receiver.port}/"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"])
async def test_an_address_that_is_not_public_is_not_connected(host: str) -> None:
    """However it is written, and whatever a name resolves to: the address that would be connected is checked."""
    async with receiving(answering(OK)) as receiver, callbacks(allowed=()) as made:
        with pytest.raises(CallbackFailed):
            await made.send(callback(f"http://{host}:{receiver.port}/"))
        assert receiver.received == []
    async with callbacks(allowed=()) as made:
        with pytest.raises(CallbackFailed, match=r"records are not sent to 127.0.0.1: .* \(FN_CALLBACK_ALLOW\)"):
            await made.send(callback(f"http://127.0.0.1:{receiver.port}/"))


async def test_a_name_server_that_changes_its_answer_gets_no_record_to_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name means an allowed address and, asked again, one that is not: what is connected is what was checked."""
    answers: list[str] = []

    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        found = {"hostname": host, "host": answers.pop(0), "port": port, "family": socket.AF_INET}
        return [{**found, "proto": 0, "flags": socket.AI_NUMERICHOST}]

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)
    outside = [ipaddress.ip_network("127.0.0.2/32")]
    async with receiving(answering(OK), host="") as receiver, callbacks(allowed=outside) as made:
        call = callback(f"http://receiver.example:{receiver.port}/")
        answers[:] = ["127.0.0.2", "127.0.0.1"]
        assert await made.send(call) == 204
        assert answers == ["127.0.0.1"], "asked once for each connection"
        with pytest.raises(CallbackFailed, match=r"records are not sent to 127\.0\.0\.1"):
            await made.send(call)
        assert receiver.addresses == ["127.0.0.2"]


async def test_a_redirect_is_not_followed() -> None:
    async with receiving(answering(OK)) as inner:
        found = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:%d/\r\ncontent-length: 0\r\n\r\n" % inner.port
        async with receiving(answering(found)) as outer, callbacks() as made:
            with pytest.raises(CallbackFailed, match="answered 307"):
                await made.send(callback(f"http://127.0.0.1:{outer.port}/"))
        assert inner.received == []


async def test_the_certificate_of_a_receiver_is_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue())
    async with receiving(answering(OK), server) as receiver:
        call = callback(f"https://127.0.0.1:{receiver.port}/")
        async with callbacks(tls=authority.client()) as made:
            assert await made.send(call) == 204
        async with callbacks() as made:
            with pytest.raises(CallbackFailed, match="certificate"):
                await made.send(call)
        assert len(receiver.received) == 1


async def test_a_route_is_called_without_a_token() -> None:
    calls: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
    status = 401

    async def call_route(app_name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((app_name, path, dict(scope["headers"]), (await receive())["body"]))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with callbacks(call_route=call_route, secrets=Keys()) as made:
        with pytest.raises(InternalError, match="the destination answered 401"):
            await made.send(callback("b/alarm/x"))
        status = 202
        assert await made.send(callback("b/alarm/x")) == 202
    app_name, path, headers, body = calls[0]
    assert (app_name, path, body) == ("b", "/alarm/x", BODY)
    assert not {b"authorization", b"hearth-signature"} & set(headers)
    assert headers[b"hearth-callback-depth"] == b"1"
