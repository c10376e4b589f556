"""A call while it is executed here: its record, its deadlines, its body, where its answer and its log go."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Protocol

from hearth.access.base import EndedCall
from hearth.agent.function import Function
from hearth.agent.life import CallObserver, CallState, Life, call_life
from hearth.agent.log import CallLog
from hearth.drivers.base import StatsSample
from hearth.models.call import RUNNING, Call
from hearth.models.errors import HearthError, ServerBusy
from hearth.models.times import format_time
from hearth.protocols.base import CallInput, CallProtocol, Head


class ClientGone(HearthError):
    """The client left: nobody waits for the answer."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Draining(ServerBusy):
    """The node takes no new calls; somebody else may."""


class NotStarted(HearthError):
    """An async call may not be run here: somebody else has it, or nobody can tell. The cause says which."""


class RequestBody(Protocol):
    """The body of the client's request."""

    @property
    def length(self) -> int | None:
        """Bytes, if the client said; 0 for none."""

    @property
    def ended(self) -> bool:
        """Every byte has been read."""

    async def read(self) -> bytes:
        """The next piece; ``b""`` at the end.

        Raises:
            ClientGone: The client left before the end.
        """


class ResponseSink(Protocol):
    """Where the answer goes. Nothing reaches the client before the first :meth:`write`, or the end of the call."""

    @property
    def started(self) -> bool:
        """The client has been sent something: its status can no longer change."""

    def head(self, head: Head) -> None:
        """The function's status and headers. At most once, before any body."""

    async def write(self, data: bytes, *, last: bool) -> None:
        """Some bytes of the body; waits while the client is slow. ``last``: the answer is complete with them."""

    def complete(self) -> None:
        """The answer has ended well; its record is not stored yet."""


class StoredBody:
    """A :class:`RequestBody` that is here already: an accepted call's payload."""

    __slots__ = ("_data", "length")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length: int | None = len(data)

    @property
    def ended(self) -> bool:
        """Every byte has been read."""
        return not self._data

    async def read(self) -> bytes:
        """All of it, once."""
        data, self._data = self._data, b""
        return data


class LogSink:
    """A :class:`ResponseSink` for a call that nobody waits for: the answer joins its log.

    Args:
        limit: Bytes of body to keep: the log would cut the rest.
    """

    __slots__ = ("_body", "_head", "_limit", "_log", "_protocol", "_size")

    def __init__(self, log: CallLog, protocol: CallProtocol, limit: int) -> None:
        self._log = log
        self._protocol = protocol
        self._limit = limit
        self._head: Head | None = None
        self._body: list[bytes] = []
        self._size = 0

    @property
    def started(self) -> bool:
        """There is no client."""
        return False

    def head(self, head: Head) -> None:
        """Keep it for the log."""
        self._head = head

    async def write(self, data: bytes, *, last: bool) -> None:
        """A cold function's output is logged as it comes, an answer when it is whole."""
        if not self._protocol.hot:
            self._log.write(data)
        elif self._size <= self._limit:
            self._body.append(data)
            self._size += len(data)

    def complete(self) -> None:
        """Write the answer in the form that its format gives it."""
        if self._head is not None:
            self._log.write(self._protocol.log_form(self._head, b"".join(self._body)))


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class ActiveCall:
    """One call being executed here; it does not outlive its request.

    Attributes:
        slot_deadline: Loop time until which it may wait for a slot.
        deadline_text: The wall time at which it is answered 504, for the function.
        first_piece: The beginning of its body, once read: another container may need it again.
        waited_s: Seconds from the request to its start (or until it gave up).
        take_over: Awaited once, when an async call holds its slot: raises :class:`NotStarted` if it may not be run.
        announced: The call listeners were asked.
        ended: Its final record and log, once it has ended and is to be recorded.
        stored: They are in the store.
        samples: Its container's resource use during its exchange.
        life: Its state, once it was submitted.
    """

    record: Call
    function: Function
    body: RequestBody
    sink: ResponseSink
    log: CallLog
    begun: float
    slot_deadline: float
    deadline_text: str
    first_piece: bytes | None = None
    waited_s: float = 0.0
    take_over: Callable[[], Awaitable[None]] | None = None
    announced: bool = False
    ended: EndedCall | None = None
    stored: bool = False
    samples: list[StatsSample] = dataclasses.field(default_factory=list)
    life: Life[CallState] | None = None

    @property
    def started(self) -> bool:
        """It holds a slot, and its exchange has begun and not ended."""
        return self.life is not None and self.life.state is CallState.EXEC

    def submit(self, observe: CallObserver) -> None:
        """It waits for a slot from now on; ``observe`` is told of each change of its state."""
        self.life = call_life(observe)

    def start(self, now: dt.datetime, loop_time: float) -> None:
        """The exchange begins."""
        self._enter(CallState.EXEC)
        self.waited_s = loop_time - self.begun
        self.record.started_at = now
        self.record.status = RUNNING

    def wait_again(self) -> None:
        """Its container was gone before a byte was handed over: it waits for another slot."""
        self._enter(CallState.WAIT)
        self.record.status = ""

    def end(self) -> None:
        """It is over, however it went."""
        self._enter(CallState.DONE)

    def _enter(self, state: CallState) -> None:
        if self.life is None:
            raise RuntimeError("the call was not submitted")
        self.life.enter(state)

    def input(self) -> CallInput:
        """What its function is told of it."""
        record = self.record
        return CallInput(
            call_id=record.id,
            method=record.method,
            url=record.url,
            headers=record.headers,
            content_length=self.body.length,
            deadline=self.deadline_text,
            call_type=record.type,
        )


def deadline_text(now: dt.datetime, timeout_s: float) -> str:
    """The execution deadline as functions read it: RFC 3339, UTC, three fractional digits."""
    return format_time(now + dt.timedelta(seconds=timeout_s))
