"""What the tests of the formats share: calls, and events made comparable."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from hearth.contracts import contract_for
from hearth.contracts.base import CallInput, Head
from hearth.contracts.stdio.codec import Body, Decoder, Event, InvalidOutput
from hearth.contracts.stdio.exchange import StdioContract


def stdio_contract(format_name: str) -> StdioContract:
    """The contract of a format that talks over stdin and stdout."""
    contract = contract_for(format_name)
    assert isinstance(contract, StdioContract)
    return contract


def a_call(**changes: Any) -> CallInput:
    values: dict[str, Any] = {
        "call_id": "01C59M8V1MG3G00GZJ00000001",
        "method": "POST",
        "url": "http://h:8080/r/app1/hi?n=2",
        "headers": {},
        "content_length": 0,
        "deadline": "2018-01-31T12:00:30.000Z",
    }
    return CallInput(**values | changes)


Summary = tuple[Head | None, bytes, bool | None]


def summary(decoder: Decoder, pieces: Iterable[bytes]) -> Summary:
    """What :func:`summarised` makes of the events that these pieces give."""
    return summarised(event for piece in pieces for event in decoder.feed(piece))


def summarised(events: Iterable[Event]) -> Summary:
    """Head, whole body, and surplus of the end (None without one), after checking that the events are in order."""
    head: Head | None = None
    body = b""
    surplus: bool | None = None
    for event in events:
        if isinstance(event, Head):
            assert head is None
            assert surplus is None
            head = event
        elif isinstance(event, Body):
            assert head is not None
            assert surplus is None
            assert event.data
            body += event.data
        else:
            assert head is not None
            assert surplus is None or event.surplus
            surplus = event.surplus
    return head, body, surplus


def outcome(decoder: Decoder, pieces: Iterable[bytes]) -> Any:
    """The summary, or the type of the error. Where an error comes, what went before it does not count."""
    try:
        return summary(decoder, pieces)
    except InvalidOutput:
        return InvalidOutput


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these positions."""
    edges = [0, *sorted({position % (len(data) + 1) for position in positions}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def two_pieces(data: bytes) -> Sequence[list[bytes]]:
    return [[data[:i], data[i:]] for i in range(len(data) + 1)]


positions = st.lists(st.integers(0, 10_000), max_size=12)
