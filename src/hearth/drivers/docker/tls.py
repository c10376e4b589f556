"""TLS to a remote Engine, with connections that can be closed one way.

A function is given the end of its input by closing our direction of the connection while its answer is still to come.
The event loop's own TLS cannot do that, but the protocol can: our ``close_notify`` ends our direction only (RFC 8446,
6.1), and the Engine reads it as the end of stdin. So the records are made here, over a plain transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Final, cast

from hearth.models.errors import StartUpError

_CHUNK: Final = 65536


def client_context(folder: Path) -> ssl.SSLContext:
    """Trust and identity from docker's three files: ``ca.pem``, ``cert.pem``, ``key.pem``.

    Raises:
        StartUpError: One is missing or of no use.
    """
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    except OSError as exc:
        raise StartUpError(
            f"DOCKER_CERT_PATH={folder}: ca.pem, cert.pem and key.pem are needed there: {exc.strerror or exc}"
        ) from exc
    return context


async def open_tls(protocol: asyncio.Protocol, context: ssl.SSLContext, host: str, port: int) -> None:
    """Connect a protocol; it gets a transport that can write an end of file.

    Raises:
        OSError: Nobody listens, or who does cannot be trusted.
    """
    loop = asyncio.get_running_loop()
    transport = TlsTransport(protocol, context, host)
    await loop.create_connection(lambda: _Records(transport), host, port)
    try:
        await transport.ready
    except BaseException:
        transport.abort()
        raise


class TlsTransport(asyncio.Transport):
    """What the protocol above writes to: plain bytes in, records out. Use :func:`open_tls`."""

    def __init__(self, protocol: asyncio.Protocol, context: ssl.SSLContext, host: str) -> None:
        super().__init__()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._protocol = protocol
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._raw: asyncio.Transport | None = None
        self._wrote_eof = False
        self._ended = False

    # -- the connection below -------------------------------------------------------------------------------------

    def opened(self, raw: asyncio.Transport) -> None:
        """The connection is there: begin to shake hands."""
        self._raw = raw
        self._shake_hands()

    def received(self, data: bytes) -> None:
        """Records arrived."""
        self._incoming.write(data)
        if not self.ready.done():
            self._shake_hands()
        if self.ready.done() and not self.ready.cancelled() and self.ready.exception() is None:
            self._decrypt()

    def lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("closed while shaking hands"))
        elif not self.ready.cancelled() and self.ready.exception() is None:
            self._protocol.connection_lost(exc)

    def pause_protocol(self) -> None:
        """The other side is not reading."""
        self._protocol.pause_writing()

    def resume_protocol(self) -> None:
        """There is room again."""
        self._protocol.resume_writing()

    def _shake_hands(self) -> None:
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as exc:
            self._flush()  # the alert that tells the other side why
            self.ready.set_exception(exc)
        else:
            self._flush()
            self.ready.set_result(None)
            self._protocol.connection_made(self)

    def _decrypt(self) -> None:
        try:
            while data := self._session.read(_CHUNK):
                self._protocol.data_received(data)
        except ssl.SSLWantReadError:
            self._flush()  # an answer to a key update, perhaps
        except ssl.SSLZeroReturnError:
            self._end()
        except ssl.SSLError:
            self.abort()
        else:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._protocol.eof_received()

    def _flush(self) -> None:
        if self._raw is not None and not self._raw.is_closing() and (records := self._outgoing.read()):
            self._raw.write(records)

    # -- the protocol above ---------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._wrote_eof or self.is_closing() or not data:
            return
        with contextlib.suppress(ssl.SSLError):  # a broken session is told by connection_lost
            self._session.write(data)
        self._flush()

    def can_write_eof(self) -> bool:
        """It can: that is what it is for."""
        return True

    def write_eof(self) -> None:
        """End our direction; the other one goes on."""
        if self._wrote_eof or self.is_closing():
            return
        self._wrote_eof = True
        # All that arrived was decrypted already, so this sends our notice and finds none of the other side.
        with contextlib.suppress(ssl.SSLError):
            self._session.unwrap()
        self._flush()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of the connection below: records are handed to it at once."""
        self._opened().set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes of records that the kernel has not taken yet."""
        return self._opened().get_write_buffer_size()

    def pause_reading(self) -> None:
        """Let the other side wait."""
        self._opened().pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self._opened().resume_reading()

    def is_closing(self) -> bool:
        """Nothing more can be sent."""
        return self._raw is None or self._raw.is_closing()

    def abort(self) -> None:
        """Close the connection, whatever is still under way."""
        if self._raw is not None:
            self._raw.abort()

    def _opened(self) -> asyncio.Transport:
        assert self._raw is not None
        return self._raw


class _Records(asyncio.Protocol):
    """Hands what the connection below tells to the transport above it."""

    def __init__(self, transport: TlsTransport) -> None:
        self._transport = transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport.opened(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._transport.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.lost(exc)

    def pause_writing(self) -> None:
        self._transport.pause_protocol()

    def resume_writing(self) -> None:
        self._transport.resume_protocol()
