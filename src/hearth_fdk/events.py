"""Server-sent events: a stream of small messages that browsers read with ``EventSource``."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from hearth_fdk.context import Answer
from hearth_fdk.invoking import encode

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold the events back
}


class Event:
    """One event.

    Args:
        data: Text as it is, anything else as JSON.
        event: Its type; ``message`` if empty.
        id: What a client that comes again says it has seen last, in ``Last-Event-ID``.
        retry_ms: After how long a client that lost the connection should come again.
    """

    def __init__(self, data: Any = None, *, event: str = "", id: str = "", retry_ms: int | None = None) -> None:
        for name, value in (("event", event), ("id", id)):
            if any(character in value for character in "\r\n\0"):
                raise ValueError(f"{name}={value!r} must be one line")
        self.data = data
        self.event = event
        self.id = id
        self.retry_ms = retry_ms

    def __repr__(self) -> str:
        return f"Event({self.data!r}, event={self.event!r}, id={self.id!r})"

    def encode(self) -> bytes:
        """Return the event as it is sent."""
        lines = [f"{name}: {value}" for name, value in (("event", self.event), ("id", self.id)) if value]
        if self.retry_ms is not None:
            lines.append(f"retry: {self.retry_ms}")
        if self.data is not None or not lines:
            text = encode(self.data)[0].decode().replace("\r\n", "\n").replace("\r", "\n")
            lines += [f"data: {line}" for line in text.split("\n")]
        return "\n".join([*lines, "", ""]).encode()


def sse(events: Iterable[Any] | AsyncIterable[Any], *, status: int = 200) -> Answer:
    """Return an answer that streams events; what is not an :class:`Event` becomes the data of one."""
    body = _encoded_async(events) if isinstance(events, AsyncIterable) else _encoded(events)
    return Answer(body, status, _HEADERS)


def _event(item: Any) -> bytes:
    return (item if isinstance(item, Event) else Event(item)).encode()


def _encoded(events: Iterable[Any]) -> Iterator[bytes]:
    try:
        for item in events:
            yield _event(item)
    finally:
        if close := getattr(events, "close", None):
            close()


async def _encoded_async(events: AsyncIterable[Any]) -> AsyncIterator[bytes]:
    try:
        async for item in events:
            yield _event(item)
    finally:
        if close := getattr(events, "aclose", None):
            await close()
