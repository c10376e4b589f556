"""What was reserved, as calls: shared by the queues that keep messages as bytes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

from hearth.models.call import Call
from hearth.models.message import InvalidMessage, decode_call, identify_call
from hearth.models.route import ASYNC
from hearth.queues.base import Reserved
from hearth.telemetry.logs import get_logger

#: Bytes of a dropped message that its log line shows.
_SHOWN_BYTES: Final = 1000

#: A message that was reserved: its lease, how often it was delivered, its bytes.
Row = tuple[str, int, bytes]

_log = get_logger(__name__)


def oldest(messages: Iterable[bytes]) -> dt.datetime | None:
    """When the oldest of these calls was made; what names no call has no age."""
    return min((call.created_at for data in messages if (call := identify_call(data)) is not None), default=None)


def decode_rows(rows: Iterable[Row], until: float) -> tuple[list[Reserved], list[str]]:
    """The calls; and the leases of what is no call at all, each told in the log, for the queue to forget.

    A message that names its call, but cannot be run, is kept: somebody was promised that it ends.
    """
    reserved: list[Reserved] = []
    worthless: list[str] = []
    for lease, deliveries, data in rows:
        try:
            reserved.append(Reserved(_accepted(data), lease, deliveries, until))
        except InvalidMessage as exc:
            if (call := identify_call(data)) is not None:
                reserved.append(Reserved(call, lease, deliveries, until, fault=str(exc)))
                continue
            _log.error("message dropped", error=str(exc), message=data[:_SHOWN_BYTES].decode("utf-8", "replace"))
            worthless.append(lease)
    return reserved, worthless


def _accepted(data: bytes) -> Call:
    """The call. Whatever its message says of the type: what was in a queue is async, for it may be delivered twice."""
    call = decode_call(data)
    call.type = ASYNC
    return call
