"""Header fields as every format treats them: names, values, and those that concern one connection only.

A header text holds one character per byte (ISO 8859-1), as on the wire; :func:`from_unicode` and :func:`to_unicode`
convert between that and Unicode, for formats that carry text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Final

from hearth.contracts.base import HOP_BY_HOP, Composed, canonical
from hearth.models.config import TOKEN

#: Statuses whose answer has no body, whatever its header says (RFC 9112 6.3).
BODILESS: Final = frozenset({204, 304})

#: Header fields of one request or answer: many small ones cost as much time as a large head.
MAX_FIELDS: Final = 1000

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Lone surrogates, and runs of eight: a replacement that is a text is made in C, one for each match.
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_EIGHT_SURROGATES: Final = re.compile(r"[\ud800-\udfff]{8}")
_REMEMBERED_LENGTH: Final = 64


def field_name(raw: str) -> str:
    """Return the canonical form of a header name; empty if it is not a name (RFC 9110 5.1)."""
    # The memory is bounded in names and in bytes: callers and functions choose the names.
    return _remembered_name(raw) if len(raw) <= _REMEMBERED_LENGTH else _name(raw)


def _name(raw: str) -> str:
    return canonical(raw) if TOKEN.fullmatch(raw) else ""


_remembered_name = functools.lru_cache(maxsize=1024)(_name)


def is_token(text: str) -> bool:
    """Return whether a text is valid as a method or header name."""
    return TOKEN.fullmatch(text) is not None


def has_control(value: str) -> bool:
    """Return whether a value holds a character that a header must not hold (line ends above all)."""
    return _CONTROL.search(value) is not None


def blank_controls(value: str) -> str:
    """Return the value with every control character replaced by a blank (RFC 9110 5.5)."""
    return _CONTROL.sub(" ", value)


def connection_only(values: Iterable[str]) -> frozenset[str]:
    """Return the canonical names not to pass on: the options among the values of ``Connection``, and the fixed ones."""
    options = {field_name(option.strip()) for value in values for option in value.split(",")}
    return HOP_BY_HOP | options


def well_formed(text: str) -> str:
    """Return the text with U+FFFD in place of each lone surrogate, so that it can be encoded."""
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", _EIGHT_SURROGATES.sub("\ufffd" * 8, text))


def to_unicode(value: str) -> str:
    """Return a header's text as Unicode: its bytes read as UTF-8, U+FFFD for those that are not."""
    if value.isascii():
        return value
    try:
        return decode_lossy(value.encode("latin-1"))
    except UnicodeEncodeError:  # never stood on a wire: it is text already
        return well_formed(value)


def to_environment(value: str) -> str:
    """Return a header's text for an environment: encoded as UTF-8 with surrogates, it gives the bytes back."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # never stood on a wire: it is text already
        return well_formed(value)


def from_unicode(text: str) -> str:
    """Return a header's text with one character for each byte of its UTF-8."""
    return text if text.isascii() else well_formed(text).encode().decode("latin-1")


def join_lines(lines: Sequence[str], cuts: Sequence[int]) -> Composed:
    """Return the bytes of a head with these lines, in three parts, without control characters but for the line ends.

    Args:
        lines: The lines.
        cuts: How many of the lines are before each of the two cuts. A cut is at the end of a line.
    """
    first, second = cuts
    texts = [
        "\r\n".join(lines[:first]),
        "\r\n".join(["", *lines[first:second]]),
        "\r\n".join(["", *lines[second:], "", ""]),
    ]
    # Clean input is proven by three fast scans of the whole; only what fails them is looked at line by line.
    whole = "".join(texts)
    if whole.count("\r") != len(lines) + 1 or whole.count("\n") != len(lines) + 1 or "\0" in whole:
        return join_lines([blank_controls(line) for line in lines], cuts)
    try:
        start, middle, end = [text.encode("latin-1") for text in texts]
    except UnicodeEncodeError:
        start, middle, end = [from_unicode(text).encode("latin-1") for text in texts]
    return start, middle, end


def encode_value(value: str) -> bytes:
    """Return the bytes of a value, without control characters."""
    value = blank_controls(value)
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return from_unicode(value).encode("latin-1")


def decode_lossy(data: bytes | bytearray) -> str:
    """Decode UTF-8, with one U+FFFD for each byte that does not belong to a character."""
    return well_formed(data.decode("utf-8", "surrogateescape"))
