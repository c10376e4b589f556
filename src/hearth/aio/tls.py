"""TLS over a plain transport, for either side of a connection, with connections that can be closed one way.

The event loop's own TLS transport cannot end one direction, but the protocol can: ``close_notify`` ends the direction
of its sender only (RFC 8446, 6.1). It also hides connections whose handshake has not ended. So the records are made
here. What arrives is decrypted at once, and what is written is encrypted at once: the connection below does the
buffering.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

_CHUNK: Final = 65536


class TlsState(enum.Enum):
    """The progress of a session: HANDSHAKE -> OPEN -> ENDED, or HANDSHAKE -> FAILED."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    ENDED = "ended"  # our direction; the other one may still be open
    FAILED = "failed"

    __hash__ = object.__hash__


class TlsTransport(asyncio.Transport):
    """The transport that the protocol above writes to: plain bytes in, records out.

    Args:
        protocol: Learns of the connection once the handshake has succeeded, and only then.
        context: Of the session.
        settled: Called once the handshake has ended, with the reason if it failed.
        is_server: This side is the server.
        host: The name that the server's certificate must have, for a client.
    """

    def __init__(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        settled: Callable[[Exception | None], None],
        *,
        is_server: bool = False,
        host: str | None = None,
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._settled = settled
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, is_server, server_hostname=host)
        self._state = TlsState.HANDSHAKE
        self._raw: asyncio.Transport | None = None
        self._other_ended = False

    def __repr__(self) -> str:
        return f"<TlsTransport {self._state.value}>"

    # -- the connection below -------------------------------------------------------------------------------------

    def opened(self, raw: asyncio.Transport) -> None:
        """Start the handshake on a new connection."""
        self._raw = raw
        self._shake_hands()

    def received(self, data: bytes) -> None:
        """Decrypt the records that arrived."""
        self._incoming.write(data)
        if self._state is TlsState.HANDSHAKE:
            self._shake_hands()
        if self._is_established():
            self._decrypt()

    def lost(self, exc: Exception | None) -> None:
        """Report that the connection is lost."""
        if self._is_established():
            self._protocol.connection_lost(exc)
        elif self._state is TlsState.HANDSHAKE:
            self._fail(exc or ConnectionResetError("closed during the handshake"))
        # They refer back to this transport. Without a cycle a session is freed now, not by the garbage collector.
        del self._protocol, self._settled, self._session

    def pause_protocol(self) -> None:
        """Pause the protocol: the other side does not read."""
        if self._is_established():
            self._protocol.pause_writing()

    def resume_protocol(self) -> None:
        """Resume the protocol: there is room again."""
        if self._is_established():
            self._protocol.resume_writing()

    def _is_established(self) -> bool:
        return self._state is TlsState.OPEN or self._state is TlsState.ENDED

    def _shake_hands(self) -> None:
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as exc:
            self._flush()  # the alert with the reason for the other side
            self._fail(exc)
        else:
            self._flush()
            self._state = TlsState.OPEN
            self._settled(None)
            self._protocol.connection_made(self)

    def _fail(self, exc: Exception) -> None:
        self._state = TlsState.FAILED
        self._settled(exc)

    def _decrypt(self) -> None:
        try:
            # The error that says that nothing is left would cost as much as the rest of a small request.
            while self._incoming.pending or self._session.pending():
                data = self._session.read(_CHUNK)
                if not data:
                    self._end_of_other()
                    return
                self._protocol.data_received(data)
        except ssl.SSLWantReadError:  # the rest of a record is still to come
            pass
        except ssl.SSLZeroReturnError:
            self._end_of_other()
        except ssl.SSLError:
            self.abort()
        self._flush()  # an answer to a key update, perhaps

    def _end_of_other(self) -> None:
        if not self._other_ended:
            self._other_ended = True
            if not self._protocol.eof_received():
                self.close()

    def _flush(self) -> None:
        if self._raw is not None and not self._raw.is_closing() and (records := self._outgoing.read()):
            self._raw.write(records)

    # -- the protocol above ---------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the connection below knows."""
        return self._opened().get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._state is not TlsState.OPEN or self.is_closing() or not data:
            return
        with contextlib.suppress(ssl.SSLError):  # connection_lost reports a broken session
            self._session.write(data)
        self._flush()

    def can_write_eof(self) -> bool:
        """Return true: this class exists because the standard library's TLS transport cannot."""
        return True

    def write_eof(self) -> None:
        """End the outgoing direction; the incoming one stays open."""
        if self._state is not TlsState.OPEN or self.is_closing():
            return
        self._state = TlsState.ENDED
        # All that arrived was decrypted already, so this sends our notice and finds none of the other side.
        with contextlib.suppress(ssl.SSLError):
            self._session.unwrap()
        self._flush()

    def close(self) -> None:
        """Close the connection once everything that was written is sent, without waiting for the other side."""
        self.write_eof()
        if self._raw is not None:
            self._raw.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the connection below: it gets all records at once."""
        self._opened().set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return the bytes of records that the kernel has not taken yet."""
        return self._opened().get_write_buffer_size()

    def pause_reading(self) -> None:
        """Stop reading from the other side."""
        self._opened().pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._opened().resume_reading()

    def is_closing(self) -> bool:
        """Return whether nothing more can be sent."""
        return self._raw is None or self._raw.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._raw is not None:
            self._raw.abort()

    def _opened(self) -> asyncio.Transport:
        assert self._raw is not None
        return self._raw


class Records(asyncio.Protocol):
    """Passes the events of the connection below to the transport above it."""

    def __init__(self, transport: TlsTransport) -> None:
        self._transport = transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the session."""
        self._transport.opened(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Pass records on."""
        self._transport.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on."""
        self._transport.lost(exc)

    def pause_writing(self) -> None:
        """Pass the pause on."""
        self._transport.pause_protocol()

    def resume_writing(self) -> None:
        """Pass the resumption on."""
        self._transport.resume_protocol()
