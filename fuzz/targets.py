"""The readers of bytes from outside: what each may say to bytes is an event or its own error, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hearth.models.errors import HearthError
from hearth.protocols.base import CallInput
from hearth.protocols.formats import protocol_for
from hearth.queues.messages import decode_rows
from hearth.sql.address import parse

_CALL: Final = CallInput(
    call_id="0", method="POST", url="http://h/r/a/b", headers={}, content_length=0, deadline="2026-01-01T00:00:00Z"
)


def _protocol(name: str) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        """The first byte says into which pieces the others are cut."""
        decoder = protocol_for(name).decoder(_CALL)
        size, rest = (data[0] or 1, data[1:]) if data else (1, b"")
        try:
            for start in range(0, len(rest), size):
                decoder.feed(rest[start : start + size])
            decoder.feed_eof()
        except HearthError:
            pass

    return feed


def _message(data: bytes) -> None:
    decode_rows([("0", 1, data)], 0.0)


def _address(data: bytes) -> None:
    try:
        parse(data.decode("utf-8", "surrogateescape"))
    except HearthError:
        pass


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "default": _protocol("default"),
    "http": _protocol("http"),
    "json": _protocol("json"),
    "message": _message,
    "address": _address,
}
