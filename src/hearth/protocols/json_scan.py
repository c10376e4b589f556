"""Finds where a JSON object ends in a growing buffer, without decoding it and without reading a byte twice."""

from __future__ import annotations

import re
from typing import Final

from hearth.protocols.base import InvalidOutput

#: Outside strings: the next character that is not part of a number, a literal, or between two values.
_NEXT: Final = re.compile(rb"[^ \t\r\n,:0-9A-Za-z+.\-]")
#: Inside a string: all up to its end, or up to a backslash that is the last byte so far.
_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)

_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_OPENING: Final = frozenset(b"{[")
_CLOSING: Final = frozenset(b"}]")
_NULL: Final = b"null"
_SAMPLE_BYTES: Final = 32


class JsonScanner:
    """Follows strings and brackets. What it lets through may still be no JSON: decoding tells."""

    __slots__ = ("_depth", "_in_string", "_position")

    def __init__(self) -> None:
        self._position = 0
        self._depth = 0
        self._in_string = False

    def scan(self, buffer: bytearray) -> int:
        """The position after the object or ``null`` that begins the buffer; 0 while it is incomplete.

        Args:
            buffer: All bytes since the value's first; each time the same ones, and more.

        Raises:
            InvalidOutput: This can never become an object, whatever follows.
        """
        if not self._position and not buffer.startswith(b"{"):
            if not buffer.startswith(_NULL[: len(buffer)]):
                raise InvalidOutput(f"not a JSON object: it begins with {_sample(buffer, 0)}")
            return len(_NULL) if len(buffer) >= len(_NULL) else 0
        size = len(buffer)
        position = self._position
        while position < size:
            if self._in_string:
                position = _skip_string(buffer, position)
                if position == size or buffer[position] == _BACKSLASH:
                    break
                position += 1
                self._in_string = False
                continue
            found = _NEXT.search(buffer, position)
            if found is None:
                position = size
                break
            position = found.end()
            if self._take(buffer, position - 1):
                return position
        self._position = position
        return 0

    def _take(self, buffer: bytearray, position: int) -> bool:
        """Take note of one character outside strings; whether it ends the value."""
        character = buffer[position]
        if character == _QUOTE:
            self._in_string = True
        elif character in _OPENING:
            self._depth += 1
        elif character in _CLOSING:
            self._depth -= 1
            return self._depth == 0
        else:
            raise InvalidOutput(f"not a JSON object: found {_sample(buffer, position)}")
        return False


def _skip_string(buffer: bytearray, position: int) -> int:
    rest = _STRING_REST.match(buffer, position)
    return rest.end() if rest else position


def _sample(buffer: bytearray, start: int) -> str:
    return repr(bytes(buffer[start : start + _SAMPLE_BYTES]).decode("utf-8", "replace"))
