"""Messages as bytes, and the calls in them: shared by the queues."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from hearth.aio.clock import next_turn
from hearth.models.call import Call
from hearth.models.function import ASYNC
from hearth.models.message import InvalidMessage, decode_call, encode_call, identify_call, split
from hearth.queues.base import LARGE_BYTES, MAX_RESERVED_BYTES, Reserved
from hearth.telemetry.logs import get_logger

#: The app of messages that name none. No app can have this name.
UNKNOWN_APP: Final = "unknown.app"
#: Hexadecimal digits of a digest that stands for a message.
_DIGITS: Final = 24

#: Bytes of a message to read for its image, which is before the payload; and messages to read at a time.
MAX_HEAD_BYTES: Final = 16 * 1024
HEADS_AT_ONCE: Final = 100


def _field(name: bytes) -> re.Pattern[bytes]:
    """Return what finds a field and its text: in a JSON string, each quotation mark has a backslash before it."""
    return re.compile(rb'"%b"\s*:\s*("(?:[^"\\]|\\.)*")' % name)


_IMAGE: Final = _field(b"image")
_APP_NAME: Final = _field(b"app_name")
_ID: Final = _field(b"id")

#: A reserved message: lease, number of deliveries, bytes.
Row = tuple[str, int, bytes]

_log = get_logger(__name__)


def log_not_given_back(exc: BaseException) -> None:
    """Log that a reserved message stays hidden until its lease expires."""
    _log.warning("reserved message not given back", error=str(exc))


async def encode_all(calls: Sequence[Call]) -> list[bytes]:
    """Return calls as messages; let the event loop run after each large one."""
    messages = []
    for call in calls:
        messages.append(encode_call(call))
        if len(call.payload) > LARGE_BYTES:
            await next_turn()
    return messages


def is_full(rows: Sequence[Row]) -> bool:
    """Return whether a reservation took no more because of its size: others may be ready."""
    return sum(len(data) for _, _, data in rows) >= MAX_RESERVED_BYTES


def oldest(messages: Iterable[bytes]) -> dt.datetime | None:
    """Return the creation time of the oldest of these calls; a message that identifies no call has none."""
    return min((call.created_at for data in messages if (call := identify_call(data)) is not None), default=None)


def decode_rows(rows: Iterable[Row], until: float) -> tuple[list[Reserved], list[Row]]:
    """Return the calls, and the messages that identify none.

    A message that identifies a call that cannot run is kept: an accepted call must end. The call gets the message as
    its payload, for the dead letters of its app.
    """
    reserved: list[Reserved] = []
    nameless: list[Row] = []
    for lease, deliveries, data in rows:
        try:
            reserved.append(Reserved(_accepted(data), lease, deliveries, until))
        except InvalidMessage as exc:
            if (call := identify_call(data)) is not None:
                call.payload, call.unreadable = data, True
                reserved.append(Reserved(call, lease, deliveries, until, fault=str(exc)))
                continue
            nameless.append((lease, deliveries, data))
    return reserved, nameless


def name_rows(nameless: Iterable[Row], names: Mapping[str, tuple[str, str]], until: float) -> list[Reserved]:
    """Return messages that identify no call as those of the calls that they were pushed for.

    Queues of versions before 0.2 know no names. Then the ones that are found in the message count. A message without
    any is one of ``UNKNOWN_APP``, with an id made of its bytes: it is kept for somebody to look at.

    Args:
        nameless: The messages.
        names: App and id of the call of each lease, where the queue knows them.
        until: The end of their leases.
    """
    reserved = []
    for lease, deliveries, data in nameless:
        app, call_id = names.get(lease, ("", ""))
        app, call_id = app or _found(_APP_NAME, data), call_id or _found(_ID, data)
        if not app or not call_id:
            app, call_id = UNKNOWN_APP, f"unreadable-{hashlib.sha256(data).hexdigest()[:_DIGITS]}"
        _log.error("message cannot be read", app_name=app, call_id=call_id)
        call = Call(id=call_id, app_name=app, path="", type=ASYNC, payload=data, unreadable=True)
        reserved.append(Reserved(call, lease, deliveries, until, fault="not a call: its message cannot be read"))
    return reserved


def _found(name: re.Pattern[bytes], data: bytes) -> str:
    """Return the first value of a field in the JSON of a message that is damaged elsewhere; empty if there is none."""
    found = name.search(split(data)[0])
    if found is None:
        return ""
    try:
        return msgspec.json.decode(found[1], type=str)
    except msgspec.DecodeError:
        return ""


def _accepted(data: bytes) -> Call:
    """Decode a call. It is async, whatever its message says: it may be delivered twice."""
    call = decode_call(data)
    call.type = ASYNC
    return call


def images_of(heads: Iterable[bytes]) -> set[str] | None:
    """Return the images that these calls run, given the first ``MAX_HEAD_BYTES`` of each; ``None`` if one is unknown.

    A message without an image cannot run, and needs none.
    """
    images = set()
    for head in heads:
        found = _IMAGE.search(head)
        if found is not None:
            try:
                images.add(msgspec.json.decode(found[1], type=str))
            except msgspec.DecodeError:
                return None
        elif len(head) >= MAX_HEAD_BYTES:
            return None
    return images
