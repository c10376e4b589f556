"""A dead letter: a call that failed, kept so that it can be run again."""

from __future__ import annotations

import datetime as dt

import msgspec

from hearth.models.call import Call


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


class DeadLetterCount(msgspec.Struct, frozen=True):
    """The dead letters of an app: how many, and when the oldest of them failed."""

    app_name: str
    count: int
    oldest: dt.datetime
