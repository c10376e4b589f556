"""Limits of one client address: connections, and request heads that have begun and not ended."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from tests.support.http_connection import FakeClient, FakeSocket, shared_of

from hearth.server.http.clients import Clients
from hearth.server.http.exchange import HttpExchange
from hearth.server.http.tls import TlsConnection
from hearth.telemetry.series import Series


async def answer(exchange: HttpExchange) -> None:
    exchange.begin(204, [])
    await exchange.end()


async def test_connections_beyond_the_limit_are_answered_429_until_one_closes() -> None:
    refused = Series()
    clients = Clients(2, 0, refused)
    async with shared_of(calls=answer, clients=clients) as shared:
        first, second, third = FakeClient(shared), FakeClient(shared), FakeClient(shared)
        other = FakeClient(shared, peer=("192.0.2.9", 5))
        third.send("GET /r/a/f HTTP/1.1\r\nHost: h\r\n\r\n")
        received = await third.settled()
        assert received.startswith(b"HTTP/1.1 429 ")
        assert b"Too many connections from this address" in received
        assert third.is_closed
        for client in (first, second, other):
            client.send("GET /r/a/f HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.settled()).startswith(b"HTTP/1.1 204 ")
        first.leave()
        again = FakeClient(shared)
        again.send("GET /r/a/f HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await again.settled()).startswith(b"HTTP/1.1 204 ")
        assert refused.value == 1
        for client in (second, other, again):
            client.leave()
    assert repr(clients) == "<Clients addresses=0>", "nothing is kept of a client that has left"


async def test_unfinished_heads_beyond_the_limit_are_refused_and_others_go_on() -> None:
    refused = Series()
    async with shared_of(calls=answer, clients=Clients(0, 2, refused_heads=refused)) as shared:
        slow = [FakeClient(shared) for _ in range(2)]
        for client in slow:
            client.send("GET /r/a/f HTT")
        late = FakeClient(shared)
        late.send("GET /r")
        received = await late.settled()
        assert received.startswith(b"HTTP/1.1 429 ")
        assert b"Too many request headers in progress" in received
        whole = FakeClient(shared)
        whole.send("GET /r/a/f HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await whole.settled()).startswith(b"HTTP/1.1 204 "), "a head in one piece is none in progress"
        slow[0].send("P/1.1\r\nHost: h\r\n\r\n")
        assert (await slow[0].settled()).startswith(b"HTTP/1.1 204 ")
        slow[1].leave()
        for _ in range(2):
            client = FakeClient(shared)
            client.send("GET")
            assert not await client.settled()
        assert refused.value == 1


class RawTransport(asyncio.Transport):
    """A connection below TLS."""

    def __init__(self) -> None:
        super().__init__({"socket": FakeSocket(3), "peername": ("192.0.2.1", 5)})
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    close = abort

    def is_closing(self) -> bool:
        return self.is_aborted

    def write(self, data: bytes | bytearray | memoryview) -> None: ...


async def test_a_connection_with_tls_counts_from_its_handshake_to_its_end() -> None:
    clients = Clients(1)
    async with shared_of(clients=clients) as shared:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        raw = [RawTransport(), RawTransport(), RawTransport()]
        first, second = TlsConnection(shared, context), TlsConnection(shared, context)
        first.connection_made(raw[0])
        second.connection_made(raw[1])
        assert [one.is_aborted for one in raw] == [False, True, False]
        second.connection_lost(None)
        first.connection_lost(None)
        third = TlsConnection(shared, context)
        third.connection_made(raw[2])
        assert not raw[2].is_aborted
        third.connection_lost(None)
    assert repr(clients) == "<Clients addresses=0>"


@pytest.mark.parametrize("peer", ["", None, ("127.0.0.1", 5), ("::1", 5, 0, 0), ("::ffff:127.0.0.1", 5, 0, 0)])
def test_clients_of_this_machine_have_no_limit(peer: Any) -> None:
    clients = Clients(1, 1)
    for _ in range(3):
        client = clients.enter(peer)
        assert client is not None
        assert client.begin_head()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff", 2, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 2, 0, 0), False),
        (("192.0.2.1", 1), ("::ffff:192.0.2.1", 2, 0, 0), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 1, 0, 2), True),
    ],
)
def test_a_client_is_its_address_and_of_ipv6_its_network(one: Any, other: Any, same: bool) -> None:
    clients = Clients(1)
    assert clients.enter(one) is not None
    assert (clients.enter(other) is None) == same
