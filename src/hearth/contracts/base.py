"""The exchange between a call and a container (protocols specification 4-6).

A :class:`Contract` is one format. For each call it makes an :class:`Exchange`, which runs the call on one container and
then says whether the container may serve another one. Contracts know neither routes nor queues nor logs.
"""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from hearth.drivers.base import Container
from hearth.models.errors import HearthError

#: Canonical header name -> values in arrival order. Header texts hold one character per byte (ISO 8859-1), as on the
#: wire, here and in :class:`Head`.
Headers = Mapping[str, Sequence[str]]

#: The head of an input without what differs from call to call: up to its id, from there to its deadline, and the rest.
Composed = tuple[bytes, bytes, bytes]

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


class InvalidProtocol(HearthError):
    """No format has this name."""

    def __init__(self) -> None:
        super().__init__("Invalid Protocol")


class ContainerGone(HearthError):
    """The container was unusable before the function read any input. The call is not to blame: try another one."""


class CallInput(msgspec.Struct, frozen=True, kw_only=True):
    """A call as its function sees it.

    Attributes:
        headers: The headers of the request, canonical names, unmodified.
        content_length: Bytes of the body; 0 for none, ``None`` if the client did not say (chunked).
        deadline: The execution deadline as RFC 3339 text.
        call_type: ``sync`` or ``async``.
        is_plain: Headers of the request and of the answer pass as they are. Otherwise the call is an HTTP request that
            a contract may have to mark as such.
        composed: The parts of its input that contracts have composed for the same request head before, by a name of
            theirs; ``None`` where heads are not kept.
    """

    call_id: str
    method: str
    url: str
    headers: Headers
    content_length: int | None
    deadline: str
    call_type: str = "sync"
    is_plain: bool = False
    composed: dict[str, Composed] | None = None

    @property
    def shows_body(self) -> bool:
        """True if somebody sees the body of the answer: a client that did not ask by HEAD, or the log."""
        return self.method != "HEAD" or self.call_type == "async"


class Head(msgspec.Struct, frozen=True, eq=False):
    """Status and headers of the answer. At most one per call, before any body.

    Attributes:
        headers: ``(canonical name, value)`` pairs in the function's order, hop-by-hop headers removed. They include no
            Content-Length if the body is chunked.
        original: What the format needs to write the log form of the answer exactly; opaque to others.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    original: object = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and (self.status, self.headers) == (other.status, other.headers)

    __hash__ = None  # type: ignore[assignment]  # headers may be a list

    def __repr__(self) -> str:
        return f"Head(status={self.status}, headers={self.headers!r})"


class RequestBody(Protocol):
    """The body of the client's request."""

    @property
    def length(self) -> int | None:
        """Return its bytes, if the client said; 0 for none."""

    @property
    def ended(self) -> bool:
        """True once every byte has been read."""

    async def read(self) -> bytes:
        """Return the next piece; ``b""`` at the end.

        Raises:
            ClientGone: The client left before the end.
        """


class ResponseSink(Protocol):
    """The receiver of an answer. Nothing reaches the client before the first :meth:`write`, or the end of the call."""

    @property
    def started(self) -> bool:
        """True once the client has been sent something: the status can no longer change."""

    def head(self, head: Head) -> None:
        """Take the function's status and headers. At most once, before any body."""

    def answer(self, head: Head, body: bytes) -> None:
        """Take a whole answer, instead of a head, its body and its end."""

    async def write(self, data: bytes, *, last: bool) -> None:
        """Take some bytes of the body; wait while the client is slow. ``last``: they complete the answer."""

    def complete(self) -> None:
        """Note that the answer is complete; its record is not stored yet."""


class ExchangeCall(Protocol):
    """The part of a call that an exchange needs.

    Attributes:
        kept_body: What was read of the body and no container has used: another container may need it again.
    """

    kept_body: list[bytes]

    @property
    def body(self) -> RequestBody:
        """Return the body of the request."""

    @property
    def sink(self) -> ResponseSink:
        """Return where the answer goes."""

    @property
    def started_at(self) -> dt.datetime | None:
        """Return the wall time of this machine at which the call got its container."""

    def input(self) -> CallInput:
        """Return the call as its function sees it."""

    def log_fields(self) -> Mapping[str, Any]:
        """Return what identifies the call in a log line."""


class Exchange(abc.ABC):
    """One call on one leased container.

    Attributes:
        status: The status of the answer; 0 before its head has arrived.
        touched: Something passed in one direction at least.
        surplus: The function wrote more than one answer to a call, this one or the one before.
    """

    __slots__ = ("status", "surplus", "touched")

    status: int
    surplus: bool
    touched: bool

    @abc.abstractmethod
    async def run(self) -> None:
        """Run the call to the end of its answer.

        Raises:
            ContainerGone: The container is unusable, and the call may run on another one.
            FunctionFailed: The function exited, or its output is not an answer.
            ClientGone: The client left before the end of its body.
        """

    @abc.abstractmethod
    def is_clean(self) -> bool:
        """Return whether the container may serve another call. Callable once, after :meth:`run` has ended.

        True only if nothing passed in any direction, or the function has read all of its input and written one whole
        answer, and nothing after it.
        """


class Contract(abc.ABC):
    """A format: how calls reach a function and answers come back. One object serves all calls of a function."""

    name: str
    hot: bool
    """True if one container serves many calls in sequence; otherwise it serves one."""
    listens: bool = False
    """True if calls reach the function on a socket; otherwise they come on its stdin."""
    holds_body: bool = False
    """True if the whole body of a request is held in memory before any of it reaches the function."""

    def check(self, url: str, headers: Headers) -> None:  # noqa: B027  # most formats carry any head
        """Look at the head of a request before it becomes a call.

        Raises:
            ApiError: The format cannot carry it.
        """

    def environment(self, call: CallInput) -> Mapping[str, str]:
        """Return the environment variables that describe the call, for a container that serves only this one."""
        return {}

    @abc.abstractmethod
    def exchange(
        self, call: ExchangeCall, container: Container, *, fresh: bool, on_probation: bool = False
    ) -> Exchange:
        """Make the exchange of one call.

        Args:
            call: The call to run.
            container: Started, and leased to the call.
            fresh: The container has served no call yet: if it is dead, the function is to blame.
            on_probation: The container is not proven to write one answer to each call.
        """

    def log_form(self, head: Head, body: bytes) -> bytes:
        """Return the whole answer of an async call as its log shows it (protocols specification 5.4)."""
        return body


def canonical(name: str) -> str:
    """Return a header's canonical name: each ``-`` part capitalised; ``_`` does not separate parts."""
    return "-".join([part[:1].upper() + part[1:].lower() for part in name.split("-")])
