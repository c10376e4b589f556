"""Read the columns of rows that other servers or older versions may have written in their own way."""

from __future__ import annotations

import datetime as dt
from typing import Final, TypeVar

import msgspec

from hearth.models.times import ZERO, parse_time
from hearth.sql.query import Row
from hearth.telemetry.logs import get_logger

T = TypeVar("T")

#: The largest integer of 64 bits, which an API client can hold.
MAX_AMOUNT: Final = 2**63 - 1

_log = get_logger(__name__)


class Fields:
    """Reads the columns of one row.

    Attributes:
        unreadable: The columns that hold something else than they should.
    """

    def __init__(self, row: Row) -> None:
        self._row = row
        self.unreadable: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """Return a text. SQLite may hold bytes or a number in its place."""
        value = self._row[name]
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return str(value) if value or value == 0 else default

    def number(self, name: str, default: int) -> int:
        """Return a number that is not negative; the default for 0 and for what an Fn server has left empty."""
        value = self._row[name]
        try:
            found = int(value or 0)
        except (ValueError, OverflowError):
            found = -1
        if 0 <= found <= MAX_AMOUNT:
            return found or default
        self.unreadable.append(name)
        return default

    def time(self, name: str) -> dt.datetime:
        """Return a time."""
        text = self.text(name)
        try:
            return parse_time(text) if text else ZERO
        except ValueError:
            self.unreadable.append(name)
            return ZERO

    def map(self, name: str, decoder: msgspec.json.Decoder[dict[str, T]]) -> dict[str, T]:
        """Return a map."""
        text = self.text(name)
        try:
            return decoder.decode(text) if text else {}
        except ValueError:
            self.unreadable.append(name)
            return {}

    def list(self, name: str, decoder: msgspec.json.Decoder[tuple[T, ...]]) -> tuple[T, ...]:
        """Return a list."""
        text = self.text(name)
        try:
            return decoder.decode(text) if text else ()
        except ValueError:
            self.unreadable.append(name)
            return ()

    def object(self, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        """Return an object."""
        text = self.text(name)
        try:
            return decoder.decode(text) if text else None
        except ValueError:
            self.unreadable.append(name)
            return None


def report(what: str, columns: list[str]) -> None:
    """Log the columns of a row that cannot be read."""
    _log.warning("columns of a row cannot be read", row=what, columns=columns)


def json(value: object) -> str:
    """Return a map, list or object as JSON. Fn writes nothing for an empty one, and both read both."""
    return msgspec.json.encode(value).decode() if value else ""
