"""The request that a function gets: the call in headers, the body of the client unchanged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from hearth.contracts.base import CallInput, Composed
from hearth.contracts.stdio.fields import connection_only, encode_value, field_name, join_lines

#: Begins the name of each header of the client, so that no client can pretend to be the platform.
PREFIX: Final = "Fn-Http-H-"
_START: Final = ("POST /call HTTP/1.1", "Host: localhost", "Fn-Call-Id: ", "Fn-Deadline: ")
#: The id and the deadline end these lines.
_CUTS: Final = (3, 4)
_INTENT: Final = "Fn-Intent: httprequest"
#: Written by Hearth itself, whatever the client sent under these names.
_OWN: Final = frozenset({"Host", "Content-Length", "Fn-Call-Id", "Fn-Deadline"})
#: Passed under its own name: it describes the body, which is the client's.
_BODY: Final = "Content-Type"
#: The names of the remembered heads: of calls whose headers pass as they are, and of others.
_PLAIN: Final = "http-stream plain"
_OF_HTTP: Final = "http-stream"
#: The fields are remembered for names of up to so many characters: a client tends to send the same ones.
_REMEMBERED_LENGTH: Final = 1024


def compose(call: CallInput, body: bytes) -> bytes:
    """Return the head of the request, and ``body`` after it."""
    known = call.composed
    if known is None:
        start, middle, end = _compose(call)
    else:
        key = _PLAIN if call.is_plain else _OF_HTTP
        start, middle, end = known.get(key) or known.setdefault(key, _compose(call))
    call_id, deadline = call.call_id, call.deadline
    if not (call_id.isalnum() and call_id.isascii() and deadline.isprintable() and deadline.isascii()):
        return b"".join((start, encode_value(call_id), middle, encode_value(deadline), end, body))
    return b"".join((start, call_id.encode(), middle, deadline.encode(), end, body))


def _compose(call: CallInput) -> Composed:
    """Return the head of the request around its id and its deadline."""
    headers, length = call.headers, call.content_length
    lines = [*_START, "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"]
    if not call.is_plain:
        lines += [_INTENT, f"Fn-Http-Method: {call.method}", f"Fn-Http-Request-Url: {call.url}"]
    names, connection = tuple(headers), tuple(headers.get("Connection", ()))
    select = _fields if sum(map(len, names + connection)) > _REMEMBERED_LENGTH else _remembered_fields
    for name, raw in select(names, connection, call.is_plain):
        lines += [f"{name}: {value}" for value in headers[raw]]
    return join_lines(lines, _CUTS)


def _fields(names: Sequence[str], connection: Sequence[str], is_plain: bool) -> list[tuple[str, str]]:
    """Return the client's fields that are passed on: name toward the function, and name in the header map.

    Args:
        names: The names in the header map.
        connection: The values of its ``Connection``.
        is_plain: They keep their names.
    """
    dropped = connection_only(connection)
    known = [(field_name(raw), raw) for raw in names]
    passed = [(name, raw) for name, raw in known if name and name not in dropped]
    if is_plain:
        return [(name, raw) for name, raw in passed if name not in _OWN]
    return [(name if name == _BODY else f"{PREFIX}{name}", raw) for name, raw in passed if name != "Host"]


_remembered_fields = functools.lru_cache(maxsize=256)(_fields)
