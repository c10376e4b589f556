"""The readers of bytes from outside: what each may say to bytes is an event or its own error, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hearth.contracts.base import CallInput
from hearth.contracts.stdio.default import DefaultContract
from hearth.contracts.stdio.exchange import StdioContract
from hearth.contracts.stdio.http import HttpContract
from hearth.contracts.stdio.json import JsonContract
from hearth.models.errors import HearthError
from hearth.queues.messages import decode_rows
from hearth.sql.address import parse

_CALL: Final = CallInput(
    call_id="0", method="POST", url="http://h/r/a/b", headers={}, content_length=0, deadline="2026-01-01T00:00:00Z"
)


def _contract(contract: StdioContract) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        """The first byte says into which pieces the others are cut."""
        decoder = contract.decoder(_CALL)
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
    "default": _contract(DefaultContract()),
    "http": _contract(HttpContract()),
    "json": _contract(JsonContract()),
    "message": _message,
    "address": _address,
}
