"""The request that a function gets: the call in headers, the body of the client unchanged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from hearth.contracts.base import CallInput
from hearth.contracts.stdio.fields import blank_controls, connection_only, field_name, from_unicode

#: Begins the name of each header of the client, so that no client can pretend to be the platform.
PREFIX: Final = "Fn-Http-H-"
_START: Final = "POST /call HTTP/1.1\r\nHost: localhost"
_INTENT: Final = "Fn-Intent: httprequest"
#: Written by Hearth itself, whatever the client sent under these names.
_OWN: Final = frozenset({"Host", "Content-Length", "Fn-Call-Id", "Fn-Deadline"})
#: Passed under its own name: it describes the body, which is the client's.
_BODY: Final = "Content-Type"
#: The fields are remembered for names of up to so many characters: a client tends to send the same ones.
_REMEMBERED_LENGTH: Final = 1024


def compose(call: CallInput, body: bytes) -> bytes:
    """Return the head of the request, and ``body`` after it."""
    headers, length = call.headers, call.content_length
    lines = [
        _START,
        f"Fn-Call-Id: {call.call_id}",
        f"Fn-Deadline: {call.deadline}",
        "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
    ]
    if not call.is_plain:
        lines += [_INTENT, f"Fn-Http-Method: {call.method}", f"Fn-Http-Request-Url: {call.url}"]
    names, connection = tuple(headers), tuple(headers.get("Connection", ()))
    select = _fields if sum(map(len, names + connection)) > _REMEMBERED_LENGTH else _remembered_fields
    for name, raw in select(names, connection, call.is_plain):
        lines += [f"{name}: {value}" for value in headers[raw]]
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:  # one is within the start
        text = "\r\n".join([_START, *[blank_controls(line) for line in lines[1:]]])
    try:
        head = f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        head = f"{from_unicode(text)}\r\n\r\n".encode("latin-1")
    return head + body


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
