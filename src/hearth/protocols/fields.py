"""Header fields as every format treats them: names, values, and those that concern one connection only.

A header text holds one character per byte (ISO 8859-1), as it stood on the wire; :func:`from_unicode` and
:func:`to_unicode` change between that and text proper, for formats that carry text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final

from hearth.protocols.base import HOP_BY_HOP, canonical

#: Statuses whose answer has no body, whatever its header says (RFC 9112 6.3).
BODILESS: Final = frozenset({204, 304})

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_REMEMBERED_LENGTH: Final = 64


def field_name(raw: str) -> str:
    """The canonical form of a header name; empty if it is none (RFC 9110 5.1)."""
    # The memory is bounded in names and in bytes: callers and functions choose the names.
    return _remembered_name(raw) if len(raw) <= _REMEMBERED_LENGTH else _name(raw)


def _name(raw: str) -> str:
    return canonical(raw) if _TOKEN.fullmatch(raw) else ""


_remembered_name = functools.lru_cache(maxsize=1024)(_name)


def is_token(text: str) -> bool:
    """Whether this can stand as a method or header name."""
    return _TOKEN.fullmatch(text) is not None


def has_control(value: str) -> bool:
    """Whether a value holds a character that must not stand in a header (line ends above all)."""
    return _CONTROL.search(value) is not None


def blank_controls(value: str) -> str:
    """The value with every control character replaced by a blank (RFC 9110 5.5)."""
    return _CONTROL.sub(" ", value)


def connection_only(values: Iterable[str]) -> frozenset[str]:
    """The canonical names not to be passed on, given the values of ``Connection``: its options and the fixed ones."""
    options = {field_name(option.strip()) for value in values for option in value.split(",")}
    return HOP_BY_HOP | options


def well_formed(text: str) -> str:
    """The text with U+FFFD in place of each lone surrogate: it can be encoded."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def to_unicode(value: str) -> str:
    """A header's text as Unicode: its bytes read as UTF-8, U+FFFD for those that are not."""
    if value.isascii():
        return value
    try:
        return decode_lossy(value.encode("latin-1"))
    except UnicodeEncodeError:  # never stood on a wire: it is text already
        return well_formed(value)


def from_unicode(text: str) -> str:
    """A header's text with one character for each byte of its UTF-8."""
    return text if text.isascii() else well_formed(text).encode().decode("latin-1")


def decode_lossy(data: bytes | bytearray) -> str:
    """UTF-8 with one U+FFFD for each byte that does not belong to a character."""
    return _SURROGATE.sub("\ufffd", data.decode("utf-8", "surrogateescape"))
