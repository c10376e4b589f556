"""A dead letter: a call that failed, kept so that it can be run again."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from hearth.models.call import Call
from hearth.models.times import format_time

#: Stands in a cursor between the time of a failure and the id of its call.
BETWEEN: Final = "/"


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter without its payload.

    Attributes:
        call: The call with its headers, as it ended.
        payload_bytes: The size of its payload.
        redriven_as: The id of the call that a redrive was about to make of it; empty: none was.
    """

    call: Call
    payload_bytes: int
    redriven_as: str = ""

    @property
    def cursor(self) -> str:
        """Return where a list goes on behind this one: lists are in the order of the failures."""
        return f"{format_time(self.call.completed_at)}{BETWEEN}{self.call.id}"


class DeadLetterCount(msgspec.Struct, frozen=True):
    """The dead letters of an app: how many, and when the oldest of them failed."""

    app_name: str
    count: int
    oldest: dt.datetime
