"""What the agent may rely on, whatever a function speaks (protocols specification 4-6).

An :class:`Encoder` turns one call's input into bytes for the function's stdin, a :class:`Decoder` turns the bytes of
its stdout into events. Both are fed; neither does I/O, neither knows time. One of each per call.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from hearth.models.errors import HearthError

#: Canonical header name -> values in arrival order. Header texts hold one character per byte (ISO 8859-1), as it stood
#: on the wire, here and in :class:`Head`.
Headers = Mapping[str, Sequence[str]]

#: RFC 9110 7.6.1: headers that concern one connection only; dropped in both directions. Canonical spelling.
HOP_BY_HOP: Final = frozenset(
    {
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Te",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Expect",
    }
)


class CallInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a function is told of its call.

    Attributes:
        headers: The request's headers, canonical names, unmodified.
        content_length: Bytes of the body; 0 for none, ``None`` where the client did not say (chunked).
        deadline: The execution deadline as RFC 3339 text.
        call_type: ``sync`` or ``async``.
    """

    call_id: str
    method: str
    url: str
    headers: Headers
    content_length: int | None
    deadline: str
    call_type: str = "sync"

    @property
    def shows_body(self) -> bool:
        """Whether the answer's body reaches anybody: not a client that asked by HEAD, but an async call's log."""
        return self.method != "HEAD" or self.call_type == "async"


class Head(msgspec.Struct, frozen=True, eq=False):
    """Status and headers of the answer. At most one per call, before any body.

    Attributes:
        headers: ``(canonical name, value)`` pairs in the function's order, hop-by-hop headers removed. Where the body
            is chunked no Content-Length is among them.
        original: What the format needs to write the answer's log form exactly; of no interest to anybody else.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    original: object = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and (self.status, self.headers) == (other.status, other.headers)

    __hash__ = None  # type: ignore[assignment]  # headers may be a list

    def __repr__(self) -> str:
        return f"Head(status={self.status}, headers={self.headers!r})"


class Body(msgspec.Struct, frozen=True):
    """Some bytes of the answer's body, never empty."""

    data: bytes


class End(msgspec.Struct, frozen=True):
    """The answer is complete.

    Attributes:
        surplus: The function wrote more than one answer: the container takes no further call.
    """

    surplus: bool = False


Event = Head | Body | End


class InvalidOutput(HearthError):
    """The function's output is not an answer of its format; the text is the ``<detail>`` of the client's error."""


def is_surplus(data: bytes) -> bool:
    """Whether these bytes after the end of an answer are more than whitespace."""
    return bool(data) and not data.isspace()


class InvalidProtocol(HearthError):
    """No format has this name."""

    def __init__(self) -> None:
        super().__init__("Invalid Protocol")


class Encoder(abc.ABC):
    """Writes one call's input."""

    __slots__ = ()

    @property
    def lossy(self) -> bool:
        """Whether the format could not carry the body's bytes unchanged. Known once :meth:`end` has returned."""
        return False

    @abc.abstractmethod
    def body(self, data: bytes) -> bytes:
        """The bytes to send for the next piece of the client's body; empty where the format buffers it.

        The format's own head comes with the first bytes returned (from here or from :meth:`end`): nothing is handed
        over before the first piece of the client's body, or its end, is there. An empty piece is nothing.

        Raises:
            InternalError: The body is longer than the call's ``content_length``.
        """

    @abc.abstractmethod
    def end(self) -> bytes:
        """The bytes to send when the client's body has ended.

        Raises:
            InternalError: The body is shorter than the call's ``content_length``.
        """


class Decoder(abc.ABC):
    """Reads one call's answer. After :class:`InvalidOutput` it is of no further use."""

    __slots__ = ()

    @abc.abstractmethod
    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in order. Bytes after :class:`End` other than whitespace set surplus.

        Fed after it has returned :class:`End`, it returns nothing for whitespace and ``End(surplus=True)`` for
        anything else.

        Raises:
            InvalidOutput: The output is not an answer.
        """

    @abc.abstractmethod
    def feed_eof(self) -> list[Event]:
        """The events that the end of the stream completes.

        Raises:
            InvalidOutput: The answer is not complete. ``started`` tells whether any byte of it had arrived.
        """

    @property
    @abc.abstractmethod
    def started(self) -> bool:
        """Any byte other than whitespace of this answer has arrived."""


class CallProtocol(abc.ABC):
    """A format: makes the encoder and decoder of each call."""

    name: Literal["default", "http", "json"]
    hot: bool
    """Whether one container serves many calls in sequence; otherwise one, and stdin is closed after its body."""

    @abc.abstractmethod
    def encoder(self, call: CallInput) -> Encoder:
        """The writer of one call's input."""

    @abc.abstractmethod
    def decoder(self, call: CallInput) -> Decoder:
        """The reader of one call's answer (it depends on the method: an answer to HEAD has no body)."""

    def log_form(self, head: Head, body: bytes) -> bytes:
        """An async call's whole answer as it stands in the call's log (protocols specification 5.4)."""
        return body


def canonical(name: str) -> str:
    """A header's canonical name: first letter of each ``-`` part upper case, the rest lower; ``_`` does not part."""
    return "-".join([part[:1].upper() + part[1:].lower() for part in name.split("-")])
