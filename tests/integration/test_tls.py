"""Connections with TLS: handshakes, certificates of both sides, and new certificates without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.clock import FakeClock
from tests.support.tls import HOST, Authority

from hearth.aio.clock import SystemClock
from hearth.models.errors import StartUpError
from hearth.nodes.tls import NodeTls, TlsFiles, load_tls
from hearth.server.http.descriptors import Descriptors
from hearth.server.http.server import HttpServer
from hearth.server.http.shared import Shared
from hearth.server.http.tls import TlsConnection
from hearth.telemetry.series import Series

BIG = bytes(range(256)) * 16_384  # 4 MiB: many records, and more than any buffer between the two ends
DAY = dt.timedelta(days=1)
#: What a client sees whose certificate is refused.
REFUSED = (httpx.HTTPError, ssl.SSLError)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo bodies; tell the scheme."""
    request = Request(scope, receive)
    answer: Response
    if request.url.path == "/echo":
        answer = PlainTextResponse(await request.body())
    elif request.url.path == "/big":
        answer = StreamingResponse(iter([BIG[at : at + 65536] for at in range(0, len(BIG), 65536)]))
    else:
        answer = PlainTextResponse(f"{scope['scheme']} {scope['client'][0]}")
    await answer(scope, receive, send)


class Served:
    """A server with TLS on a port of its own."""

    def __init__(self, server: HttpServer, tls: NodeTls, port: int, failed: Series) -> None:
        self.server = server
        self.tls = tls
        self.port = port
        self.failed = failed
        self.url = f"https://{HOST}:{port}"

    def client(self, context: ssl.SSLContext, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, verify=context, trust_env=False, timeout=60, **options)

    async def serial(self, context: ssl.SSLContext) -> int:
        """The serial number of the certificate that a new connection sees."""
        _, writer = await asyncio.open_connection(HOST, self.port, ssl=context)
        number = int(writer.get_extra_info("peercert")["serialNumber"], 16)
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        return number


@contextlib.asynccontextmanager
async def serving(
    files: TlsFiles, *, clock: Any = None, is_admin: bool = True, handler: ASGIApp = app
) -> AsyncIterator[Served]:
    failed = Series()
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    tls = await asyncio.to_thread(load_tls, files, SystemClock(), Series())
    async with tls, HttpServer(clock or SystemClock(), head_timeout_s=30, failed_handshakes=failed) as server:
        await server.listen([listener], handler, tls=tls.contexts(is_admin=is_admin))
        yield Served(server, tls, port, failed)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    return TlsFiles(*authority.issue())


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_true():
            await asyncio.sleep(0.01)


# -- requests ---------------------------------------------------------------------------------------------------------


async def test_requests_and_answers_of_all_sizes_pass(files: TlsFiles, authority: Authority) -> None:
    async with serving(files) as served, served.client(authority.client()) as client:
        assert (await client.get("/")).text == "https 127.0.0.1"
        for size in (0, 1, 16384, 16385, len(BIG)):
            answer = await client.post("/echo", content=BIG[:size])
            assert answer.content == BIG[:size]
        assert (await client.get("/big")).content == BIG
        answers = await asyncio.gather(*[client.post("/echo", content=b"%d" % number) for number in range(50)])
        assert [answer.content for answer in answers] == [b"%d" % number for number in range(50)]
    assert served.failed.value == 0


async def test_a_slow_client_gets_all_of_the_last_answer(files: TlsFiles, authority: Authority) -> None:
    async with serving(files) as served:
        reader, writer = await asyncio.open_connection(HOST, served.port, ssl=authority.client(), limit=1024)
        writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = b""
        while data := await reader.read(100_000):
            got += data
            await asyncio.sleep(0)
        assert b"\r\n0\r\n\r\n" in got, "not cut off"
        assert len(got) > len(BIG)
        writer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_present_versions_of_tls_are_spoken(
    files: TlsFiles, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    async with serving(files) as served, served.client(context) as client:
        assert (await client.get("/")).status_code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(files: TlsFiles, authority: Authority) -> None:
    context = authority.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(files) as served, served.client(context) as client:
        with pytest.raises(httpx.ConnectError, match=r"(?i)version"):
            await client.get("/")


async def test_plain_http_learns_nothing(files: TlsFiles, authority: Authority) -> None:
    async with serving(files) as served:
        for request in (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n", b"\0" * 100, b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection(HOST, served.port)
            writer.write(request)
            if len(request) < 5:
                writer.write_eof()
            got = await reader.read()
            assert b"HTTP" not in got
            assert len(got) < 10, "an alert of TLS, at most"
            writer.close()
        assert served.failed.value == 3
        async with served.client(authority.client()) as client:
            assert (await client.get("/")).status_code == 200


# -- handshakes -------------------------------------------------------------------------------------------------------


async def test_slow_handshakes_hold_nobody_up_and_have_a_limit(files: TlsFiles, authority: Authority) -> None:
    clock = FakeClock()
    async with serving(files, clock=clock) as served:
        slow = [await asyncio.open_connection(HOST, served.port) for _ in range(20)]
        for _, writer in slow:
            writer.write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a greeting
        async with served.client(authority.client()) as client:
            assert (await client.get("/")).status_code == 200
            clock.advance(9.9)
            assert (await client.get("/")).status_code == 200
            assert not any(reader.at_eof() for reader, _ in slow)
            clock.advance(0.2)
            for reader, writer in slow:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            assert (await client.get("/")).status_code == 200
        assert served.failed.value == 20


async def test_a_drain_waits_for_no_handshake(files: TlsFiles) -> None:
    async with serving(files) as served:
        reader, writer = await asyncio.open_connection(HOST, served.port)
        writer.write(b"\x16\x03\x01")
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await served.server.drain(3600)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_a_drain_waits_for_no_client_that_keeps_its_connection(files: TlsFiles, authority: Authority) -> None:
    """Such a client does not answer the end of the session: nobody reads its socket."""
    async with serving(files) as served, served.client(authority.client()) as client:
        assert (await client.get("/")).status_code == 200
        async with asyncio.timeout(60):
            await served.server.drain(3600)


class Descriptor(asyncio.Transport):
    """A connection with this descriptor."""

    def __init__(self, number: int) -> None:
        super().__init__({"socket": self})
        self._number = number
        self.is_aborted = False

    def fileno(self) -> int:
        return self._number

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted


@pytest.mark.parametrize(("descriptor", "is_admitted"), [(9, True), (10, False)])
async def test_a_connection_counts_before_its_handshake(files: TlsFiles, descriptor: int, is_admitted: bool) -> None:
    refused, failed = Series(), Series()
    shared = Shared(
        SystemClock(),
        app,
        None,
        head_timeout_s=30,
        descriptors=Descriptors(10, 20, refused),
        failed_handshakes=failed,
    )
    made = TlsConnection(shared, (await asyncio.to_thread(files.load)).plain)
    transport = Descriptor(descriptor)
    made.connection_made(transport)
    assert (transport.is_aborted, refused.value) == (not is_admitted, 0 if is_admitted else 1)
    assert shared.handshakes == ({made} if is_admitted else set())
    made.connection_lost(None)
    assert shared.handshakes == set()
    assert failed.value == (1 if is_admitted else 0)
    await shared.close()


async def test_what_a_closed_connection_used_is_freed_without_the_garbage_collector(
    files: TlsFiles, authority: Authority
) -> None:
    async with serving(files) as served:
        old = weakref.ref(served.tls.contexts(is_admin=True)())
        gc.collect()
        gc.disable()
        try:
            async with served.client(authority.client()) as client:
                assert (await client.post("/echo", content=BIG)).content == BIG
            _, writer = await asyncio.open_connection(HOST, served.port)
            writer.close()
            await until(lambda: served.failed.value == 1)
            authority.issue()
            await served.tls.look()
            await until(lambda: old() is None)
        finally:
            gc.enable()


# -- trust ------------------------------------------------------------------------------------------------------------


async def test_who_does_not_trust_the_authority_sends_nothing(files: TlsFiles, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    async with serving(files) as served, served.client(stranger.client()) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get("/")
        await until(lambda: served.failed.value == 1)


async def test_an_expired_certificate_is_served_with_a_warning_and_trusted_by_nobody(authority: Authority) -> None:
    now = dt.datetime.now(dt.UTC)
    expired = TlsFiles(*authority.issue(valid_from=now - 2 * DAY, until=now - DAY))
    async with serving(expired) as served, served.client(authority.client()) as client:
        with pytest.raises(httpx.ConnectError, match="expired"):
            await client.get("/")
        assert ["expired at" in text for text in served.tls.warnings()] == [True]


@pytest.mark.parametrize(("days", "warns"), [(13, True), (15, False)])
async def test_a_certificate_that_expires_soon_is_warned_of(authority: Authority, days: int, warns: bool) -> None:
    expiry, until_then = Series(), dt.datetime.now(dt.UTC) + days * DAY
    files = TlsFiles(*authority.issue(until=until_then))
    tls = await asyncio.to_thread(load_tls, files, SystemClock(), expiry)
    assert ["expires at" in text for text in tls.warnings()] == [True] * warns
    assert expiry.value == int(until_then.timestamp())


async def test_clients_that_need_a_certificate_show_one_of_the_right_authority(
    authority: Authority, tmp_path: Path
) -> None:
    clients, stranger = Authority(tmp_path / "clients"), Authority(tmp_path / "stranger")
    files = TlsFiles(*authority.issue(), clients.ca)
    async with serving(files) as served:
        for shown in ((), stranger.issue("me", "me"), authority.issue("self", "me")):
            async with served.client(authority.client(*shown)) as client:
                with pytest.raises(REFUSED):
                    await client.get("/")
        now = dt.datetime.now(dt.UTC)
        expired = clients.issue("old", "me", valid_from=now - 2 * DAY, until=now - DAY)
        async with served.client(authority.client(*expired)) as client:
            with pytest.raises(REFUSED):
                await client.get("/")
        assert served.failed.value == 4
        async with served.client(authority.client(*clients.issue("good", "me"))) as client:
            assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(("is_admin", "status"), [(True, None), (False, 200)])
async def test_only_clients_of_the_admin_listener_need_one_if_that_is_asked_for(
    authority: Authority, tmp_path: Path, is_admin: bool, status: int | None
) -> None:
    files = TlsFiles(*authority.issue(), Authority(tmp_path / "clients").ca, for_admin_only=True)
    async with serving(files, is_admin=is_admin) as served, served.client(authority.client()) as client:
        found = None
        with contextlib.suppress(*REFUSED):
            found = (await client.get("/")).status_code
        assert found == status


# -- new certificates -------------------------------------------------------------------------------------------------


async def test_new_certificates_are_used_under_load_and_no_request_fails(files: TlsFiles, authority: Authority) -> None:
    context = authority.client()
    async with serving(files) as served, served.client(context) as kept:
        stop = asyncio.Event()
        statuses: set[int] = set()

        async def load() -> None:
            while not stop.is_set():
                async with served.client(context) as client:
                    statuses.add((await client.post("/echo", content=BIG[:100_000])).status_code)
                statuses.add((await kept.get("/")).status_code)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            seen = {await served.serial(context)}
            for _ in range(5):
                authority.issue()
                await served.tls.look()
                seen.add(await served.serial(context))
            stop.set()
        assert len(seen) == 6
        assert statuses == {200}
        assert served.failed.value == 0


async def test_a_change_of_the_files_is_noticed_and_so_is_a_request_to_look(
    files: TlsFiles, authority: Authority
) -> None:
    clock = FakeClock()
    tls = await asyncio.to_thread(load_tls, files, clock, expiry := Series())
    async with tls:
        await until(lambda: clock.pending == 1)
        first = tls.contexts(is_admin=False)()
        authority.issue(until=(later := dt.datetime(2040, 1, 1, tzinfo=dt.UTC)))
        clock.advance(10)
        await until(lambda: tls.contexts(is_admin=False)() is not first)
        assert expiry.value == later.timestamp()
        second = tls.contexts(is_admin=False)()
        tls.reload()
        await until(lambda: tls.contexts(is_admin=False)() is not second)


async def test_a_certificate_that_cannot_be_used_keeps_the_old_one(files: TlsFiles, authority: Authority) -> None:
    context = authority.client()
    now = dt.datetime.now(dt.UTC)

    def garbage() -> None:
        files.cert.write_text("no certificate")

    def gone() -> None:
        files.key.unlink()

    def another_key() -> None:
        authority.issue("other")[1].replace(files.key)

    def half_written() -> None:
        files.cert.write_bytes(files.cert.read_bytes()[:200])

    def expired() -> None:
        authority.issue(valid_from=now - 2 * DAY, until=now - DAY)

    def of_tomorrow() -> None:
        authority.issue(valid_from=now + DAY, until=now + 2 * DAY)

    def locked() -> None:
        from cryptography.hazmat.primitives import serialization as forms

        key = forms.load_pem_private_key(files.key.read_bytes(), None)
        hidden = forms.BestAvailableEncryption(b"secret")
        form = forms.PrivateFormat.TraditionalOpenSSL
        files.key.write_bytes(key.private_bytes(forms.Encoding.PEM, form, hidden))

    async with serving(files) as served:
        for spoil in (garbage, gone, another_key, half_written, expired, of_tomorrow, locked):
            before = await served.serial(context)
            spoil()
            await served.tls.look()
            assert await served.serial(context) == before, spoil
            assert ["is not used" in text for text in served.tls.warnings()] == [True], spoil
            authority.issue()
            await served.tls.look()
            assert await served.serial(context) != before
            assert served.tls.warnings() == []


async def test_new_authorities_of_clients_are_used(authority: Authority, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    files = TlsFiles(*authority.issue(), tmp_path / "clients.pem")
    (tmp_path / "clients.pem").write_bytes(old.ca.read_bytes())
    async with serving(files) as served:
        for is_old in (True, False):
            for one, is_welcome in ((old, is_old), (new, not is_old)):
                status = None
                async with served.client(authority.client(*one.issue("me", "me"))) as client:
                    with contextlib.suppress(*REFUSED):
                        status = (await client.get("/")).status_code
                assert (status == 200) == is_welcome
            (tmp_path / "clients.pem").write_bytes(new.ca.read_bytes())
            await served.tls.look()


@pytest.mark.parametrize("missing", ["cert", "key"])
async def test_a_node_does_not_start_with_files_that_it_cannot_use(
    files: TlsFiles, tmp_path: Path, missing: str
) -> None:
    getattr(files, missing).write_text("nothing")
    with pytest.raises(StartUpError, match=r"^FN_TLS_CERT, FN_TLS_KEY: .*name files of this node's certificate"):
        await asyncio.to_thread(load_tls, files, SystemClock(), Series())
