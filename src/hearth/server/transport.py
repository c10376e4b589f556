"""A client's transport, as the HTTP server sees it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_HEAD: Final = b"HTTP/1."
#: A body up to this size is copied behind its head; a larger one follows it.
_COPIED_BYTES: Final = 64 * 1024


class HeadHolder(asyncio.Transport):
    """Sends an answer's head together with what follows in the same turn of the loop: one system call, one packet.

    The server writes head and body apart, and to send something costs as much as a fifth of a warm call. A head that
    nothing follows is sent by the next turn.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; or hold for a moment."""
        if self._held:
            head, self._held = self._held, b""
            if len(data) > _COPIED_BYTES:
                self._transport.write(head)
                self._transport.write(data)
            else:
                self._transport.write(head + data)
        elif data[:7] == _HEAD:
            self._held = bytes(data)
            self._loop.call_soon(self._send_held)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self._send_held()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        """It is closed, or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take no more of the client."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._transport.resume_reading()

    def _send_held(self) -> None:
        if self._held:
            head, self._held = self._held, b""
            self._transport.write(head)
