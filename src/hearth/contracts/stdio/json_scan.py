"""Reads a JSON object piece by piece: checks it, finds its end, and takes the text of its body out as it comes.

The body is most of a large answer. Decoded at the end, in one go, it would stop the event loop for as long as that
takes; so each piece of it is decoded when it arrives. All the rest, the outline, is kept as it is, with an empty text
in place of the body, and is small.
"""

from __future__ import annotations

import enum
import json
import re
from typing import Final

import msgspec

from hearth.contracts.stdio.codec import InvalidOutput
from hearth.contracts.stdio.fields import decode_lossy, well_formed

#: Default limit on the bytes of an answer without its body's text.
MAX_OUTLINE_BYTES: Final = 256 * 1024

_MAX_DEPTH: Final = 500
_MAX_SCALAR_BYTES: Final = 4096
#: A token outside strings, behind blanks: a sign, the begin of a string, or a number or literal.
_TOKEN: Final = re.compile(rb'[ \t\r\n]*(?:([{}\[\]:,])|(")|([^ \t\r\n{}\[\]:,"]+))')
_SCALAR: Final = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_BEGINS: Final = re.compile(rb"-?(?:0|[1-9][0-9]*+)?(?:(?<=[0-9])\.[0-9]*+)?(?:(?<=[0-9])[eE](?:[+-]?[0-9]*+))?")
_LITERALS: Final = (b"true", b"false", b"null")
#: Inside a string: all up to its end, to a backslash that is the last byte so far, or to what no string may hold.
_STRING_REST: Final = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+')
_ESCAPE_BEGINS: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")
#: The same, up to an escape that is not complete; the two halves of a character beyond 16 bits stay together.
_WHOLE_UNITS: Final = re.compile(
    rb'(?:[^"\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4}|(?=[^\\]|\\[^u])))*+",
    re.DOTALL,
)
_UNIT_BEGINS: Final = re.compile(
    rb"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?))?"
)
_QUOTE: Final = ord('"')
_SAMPLE_BYTES: Final = 32
_BODY: Final = "body"
_MAX_KEY_BYTES: Final = 64


class _Expect(enum.Enum):
    """The tokens that may come next."""

    VALUE = "a value"
    FIRST_ITEM = "a value or ]"
    ITEM_END = ", or ]"
    FIRST_KEY = "a name or }"
    KEY = "a name"
    COLON = ":"
    MEMBER_END = ", or }"


class _In(enum.Enum):
    """The string that is being read."""

    NONE = "none"
    KEY = "key"
    TEXT = "text"
    BODY = "body"


class AnswerScanner:
    """Takes the pieces of one answer.

    Args:
        max_outline_bytes: Limit on the answer without its body's text.

    Attributes:
        outline: The object as far as it was read, the body's text taken out.
        body: That text as UTF-8, in pieces.
        size: Bytes of the answer that were read.
    """

    __slots__ = (
        "_expect",
        "_in",
        "_is_body",
        "_key_start",
        "_limit",
        "_nesting",
        "_tail",
        "body",
        "outline",
        "size",
    )

    def __init__(self, max_outline_bytes: int = MAX_OUTLINE_BYTES) -> None:
        self.outline = bytearray()
        self.body: list[bytes] = []
        self.size = 0
        self._limit = max_outline_bytes
        self._nesting = bytearray()
        self._expect = _Expect.VALUE
        self._in = _In.NONE
        self._is_body = False
        self._key_start = 0
        self._tail = b""

    def feed(self, data: bytes) -> bytes | None:
        """Return the bytes after the answer's end; ``None`` while it has not ended.

        Raises:
            InvalidOutput: This can never become an object or ``null``, whatever follows.
        """
        data, self._tail = self._tail + data, b""
        if not self.outline:
            data = data.lstrip(b" \t\r\n")
            if not data:
                return None
            if data[:1] != b"{":
                return self._read_null(data)
        position = 0
        while position < len(data):
            if self._in is _In.NONE:
                position = self._take_token(data, position)
                if not self._nesting and self.outline:
                    return data[position:]
            elif self._in is _In.BODY:
                position = self._take_body(data, position)
            else:
                position = self._take_string(data, position)
            if len(self.outline) > self._limit:
                raise InvalidOutput(f"answer without its body larger than {self._limit} bytes")
        return None

    def _read_null(self, data: bytes) -> bytes | None:
        if data.startswith(b"null"):
            self.outline += b"null"
            self.size += 4
            return data[4:]
        if not b"null".startswith(data):
            raise InvalidOutput(f"not a JSON object: it begins with {_sample(data, 0)}")
        self._tail = data
        return None

    # -- outside strings -----------------------------------------------------------------------------------------

    def _take_token(self, data: bytes, position: int) -> int:
        found = _TOKEN.match(data, position)
        if found is None:  # blanks
            self._keep(data, position, len(data))
            return len(data)
        end = found.end()
        kind = found.lastindex
        if kind == 3:
            if end == len(data):  # it may go on
                return self._wait_for_scalar(data, position, found.start(3))
            if self._expect not in (_Expect.VALUE, _Expect.FIRST_ITEM) or not _SCALAR.fullmatch(found[3]):
                raise self._unexpected(data, found.start(3))
            self._value_ended()
        elif kind == 2:
            self._begin_string(data, end - 1)
        else:
            self._take_sign(data, end - 1)
        self._keep(data, position, end)
        if kind == 2 and self._in is _In.KEY:
            self._key_start = len(self.outline) - 1
        return end

    def _wait_for_scalar(self, data: bytes, position: int, start: int) -> int:
        text = data[start:]
        is_possible = any(literal.startswith(text) for literal in _LITERALS) or _NUMBER_BEGINS.fullmatch(text)
        if self._expect not in (_Expect.VALUE, _Expect.FIRST_ITEM) or not is_possible or len(text) > _MAX_SCALAR_BYTES:
            raise self._unexpected(data, start)
        self._keep(data, position, start)
        self._tail = text
        return len(data)

    def _begin_string(self, data: bytes, position: int) -> None:
        if self._expect in (_Expect.FIRST_KEY, _Expect.KEY):
            self._in = _In.KEY
        elif self._expect in (_Expect.VALUE, _Expect.FIRST_ITEM):
            self._in = _In.TEXT
            if self._is_body and len(self._nesting) == 1:
                self._in = _In.BODY
                self.body.clear()
        else:
            raise self._unexpected(data, position)

    def _take_sign(self, data: bytes, position: int) -> None:
        sign, expect = data[position : position + 1], self._expect
        if sign in (b"{", b"[") and expect in (_Expect.VALUE, _Expect.FIRST_ITEM):
            if len(self._nesting) == _MAX_DEPTH:
                raise InvalidOutput("nested too deeply")
            self._nesting += sign
            self._expect = _Expect.FIRST_KEY if sign == b"{" else _Expect.FIRST_ITEM
        elif (sign == b"}" and expect in (_Expect.FIRST_KEY, _Expect.MEMBER_END)) or (
            sign == b"]" and expect in (_Expect.FIRST_ITEM, _Expect.ITEM_END)
        ):
            self._nesting.pop()
            self._value_ended()
        elif sign == b"," and expect is _Expect.MEMBER_END:
            self._expect = _Expect.KEY
        elif sign == b"," and expect is _Expect.ITEM_END:
            self._expect = _Expect.VALUE
        elif sign == b":" and expect is _Expect.COLON:
            self._expect = _Expect.VALUE
        else:
            raise self._unexpected(data, position)

    def _value_ended(self) -> None:
        self._expect = _Expect.ITEM_END if self._nesting.endswith(b"[") else _Expect.MEMBER_END

    def _keep(self, data: bytes, start: int, end: int) -> None:
        self.outline += data[start:end]
        self.size += end - start

    def _unexpected(self, data: bytes, position: int) -> InvalidOutput:
        return InvalidOutput(
            f"not a JSON object: {_sample(data, position)} at byte {self.size}, where {self._expect.value} is expected"
        )

    # -- within strings --------------------------------------------------------------------------------------------

    def _take_string(self, data: bytes, position: int) -> int:
        rest = _STRING_REST.match(data, position)
        end = rest.end() if rest else position
        if end == len(data):
            self._keep(data, position, end)
            return end
        if data[end] != _QUOTE:
            if not _ESCAPE_BEGINS.fullmatch(data, end):
                raise InvalidOutput(f"not a JSON object: {_sample(data, end)} within a string")
            self._keep(data, position, end)
            self._tail = data[end:]
            return len(data)
        self._keep(data, position, end + 1)
        if self._in is _In.KEY:
            self._is_body = self._key_is_body()
            self._expect = _Expect.COLON
        else:
            self._value_ended()
        self._in = _In.NONE
        return end + 1

    def _key_is_body(self) -> bool:
        key = self.outline[self._key_start :]
        if len(self._nesting) != 1 or len(key) > _MAX_KEY_BYTES:
            return False
        try:
            return str(json.loads(decode_lossy(key))).lower() == _BODY
        except ValueError:  # decoding the outline tells what is wrong with it
            return False

    def _take_body(self, data: bytes, position: int) -> int:
        found = _WHOLE_UNITS.match(data, position)
        end = found.end() if found else position
        if end < len(data) and data[end] == _QUOTE:
            self._add_body(data[position:end])
            self.size += end + 1 - position
            self.outline += b'"'
            self._in = _In.NONE
            self._value_ended()
            return end + 1
        if end == len(data):
            end = max(position, _whole_characters(data))
        elif not _UNIT_BEGINS.fullmatch(data, end):
            raise InvalidOutput(f"not a JSON object: {_sample(data, end)} within a string")
        self._add_body(data[position:end])
        self.size += end - position
        self._tail = data[end:]
        return len(data)

    def _add_body(self, text: bytes) -> None:
        if text:
            self.body.append(_decode_text(b'"%b"' % text))


def _whole_characters(data: bytes) -> int:
    """Return the end of the last character that is complete, or that can never be one."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if needed <= back else len(data) - back
        if byte < 0x80:
            break
    return len(data)


def _decode_text(text: bytes) -> bytes:
    """Return the UTF-8 of a JSON string; invalid bytes, and surrogates without their other half, are replaced."""
    try:
        decoded = msgspec.json.decode(text, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            decoded = well_formed(json.loads(decode_lossy(text)))
        except ValueError as exc:
            raise InvalidOutput(f"not a JSON object: {exc}") from None
    return decoded.encode()


def _sample(data: bytes, start: int) -> str:
    return repr(bytes(data[start : start + _SAMPLE_BYTES]).decode("utf-8", "replace"))
