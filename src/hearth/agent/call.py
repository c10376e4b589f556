"""A call while it runs here: its record and times, its body and log, and where its answer goes."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hearth.agent.function import Function
from hearth.agent.meters import Outcome
from hearth.agent.states import CALL_STATES, CallState, InvalidTransition
from hearth.contracts.base import CallInput, Composed, RequestBody, ResponseSink
from hearth.drivers.base import StatsSample
from hearth.models.call import RUNNING, Call
from hearth.models.errors import HearthError, ServerBusy
from hearth.models.times import format_time
from hearth.telemetry.logs import get_logger, log_levels

DEFAULT_LIMIT_BYTES: Final = 1024 * 1024
_LINE_LIMIT: Final = 16 * 1024
#: Characters of a log's last line that an error quotes.
_TOLD: Final = 200
_TAIL_BYTES: Final = 4096
_CUT_BEGIN: Final = b"\n-----max log size "
_CUT_END: Final = b" bytes exceeded, truncating log-----\n"

_log = get_logger(__name__)


class ClientGone(HearthError):
    """The client left: nobody waits for the answer."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Draining(ServerBusy):
    """The node takes no new calls; another node may."""


class FunctionAnswered(HearthError):
    """The function answered with a server error. The client gets that answer as it is; the call counts as failed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"function answered {status}")


class NotStarted(HearthError):
    """An async call may not be run here: somebody else has it, or nobody can tell. The cause says which."""


class LineLog:
    """Copies a stream to the server's log at debug, line by line.

    Args:
        fields: Returns the fields of every line: whose output it is.
    """

    __slots__ = ("_fields", "_partial")

    def __init__(self, fields: Callable[[], dict[str, Any]]) -> None:
        self._fields = fields
        self._partial = b""

    def write(self, data: bytes) -> None:
        """Take some bytes; whole lines are logged at once, an unfinished one when it is finished or too long."""
        if not log_levels.functions:
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._partial) > _LINE_LIMIT:
            self.close()

    def close(self) -> None:
        """Log the unfinished last line, if there is one."""
        if self._partial:
            self._emit(self._partial)
            self._partial = b""

    def _emit(self, line: bytes) -> None:
        _log.debug(line.decode("utf-8", "replace"), **self._fields())


class CallLog(msgspec.Struct, eq=False):
    """One call's log. What exceeds the limit is cut at the byte and a marker says so; never an error for anybody.

    A struct, because its constructor takes no call of Python's.

    Args:
        fields: Returns the fields of the lines that are copied to the server's log.
        limit: Bytes to keep.
        call_id: The call.
    """

    _fields: Callable[[], dict[str, Any]]
    _limit: int = DEFAULT_LIMIT_BYTES
    call_id: str = ""
    _lines: LineLog | None = None
    _chunks: list[bytes] = msgspec.field(default_factory=list)
    _size: int = 0
    _cut: bool = False
    _open: bool = True
    _late: Callable[[CallLog], None] | None = None

    def write(self, data: bytes) -> None:
        """Take some bytes of output."""
        if self._lines is None:
            self._lines = LineLog(self._fields)
        self._lines.write(data)
        if self._cut or not self._open:
            return
        room = self._limit - self._size
        if len(data) > room:
            self._cut = True
            data = data[:room]
        if data:
            self._chunks.append(data)
            self._size += len(data)
        if self._late is not None:
            late, self._late = self._late, None
            late(self)

    def precede(self, data: bytes) -> None:
        """Put output before all the rest, as far as there is room."""
        data = data[: self._limit - self._size]
        self._chunks.insert(0, data)
        self._size += len(data)

    def take(self, late: Callable[[CallLog], None] | None = None) -> bytes:
        """End the log and return its bytes, with the marker if it was cut.

        Args:
            late: Called once when more comes: then take it all again. Without it, or once the log was cut, later bytes
                are not kept.
        """
        if self._lines is None and not self._chunks and late is None:  # as of most calls
            self._open, self._late = False, None
            return b""
        if self._lines is not None:
            self._lines.close()
        self._late = None if self._cut else late
        self._open = self._late is not None
        if self._cut:
            self._chunks.append(b"%b%d%b" % (_CUT_BEGIN, self._limit, _CUT_END))
        text = b"".join(self._chunks)
        self._chunks = [text] if self._open else []
        return text


def last_line(log: bytes) -> str:
    """Return the last line of a log with visible text, shortened; empty if there is none."""
    if log.endswith(_CUT_END):
        log = log.rpartition(_CUT_BEGIN)[0]
    line = log[-_TAIL_BYTES:].rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")
    text = "".join(sign if sign.isprintable() else " " for sign in line).strip()
    return text if len(text) <= _TOLD else f"{text[: _TOLD - 3]}..."


class ActiveCall(msgspec.Struct, eq=False, kw_only=True):
    """One call being executed here; it does not outlive its request.

    Attributes:
        since: Loop time at which the call was created.
        since_at: The wall time of this machine then. Later ones are computed from it: they keep their order if the
            clock is set.
        recorded_at: The same for the record: not before its creation, which another node may have dated.
        kept_body: What was read of its body and no container has used: another one may need it again.
        waited_s: Seconds from the request to its start (or until it gave up).
        is_queued: An accepted async call that has not started: if it finds no room, it stays in the queue.
        ending: Why it has to end early; ``None`` if it does not.
        limit: The key of its time limit, once it has one.
        task: Runs it, while it runs.
        samples: Its container's resource use during its exchange.
        answered: The status of the function's answer, once its head was read; 0 before.
        is_plain: Its headers reach the function as they are, and those of the answer the client.
        composed: What contracts remember of its head, see :class:`~hearth.contracts.base.CallInput`.
        state: Its state, once it was submitted; changed here only.
    """

    record: Call
    function: Function
    body: RequestBody
    sink: ResponseSink
    log: CallLog
    since: float
    since_at: dt.datetime
    recorded_at: dt.datetime
    kept_body: list[bytes] = msgspec.field(default_factory=list)
    waited_s: float = 0.0
    is_queued: bool = False
    ending: Exception | None = None
    limit: int = -1
    task: asyncio.Task[Any] | None = None
    samples: list[StatsSample] = msgspec.field(default_factory=list)
    answered: int = 0
    is_plain: bool = False
    composed: dict[str, Composed] | None = None
    state: CallState | None = None

    def __repr__(self) -> str:
        return f"<ActiveCall {self.record.id} {self.state.value if self.state else 'new'}>"

    @property
    def started(self) -> bool:
        """True while it holds a slot and its exchange runs."""
        return self.state is CallState.EXEC

    @property
    def started_at(self) -> dt.datetime:
        """Return the wall time of this machine at which it got its container."""
        return self.since_at + dt.timedelta(0, self.waited_s)

    def end_late(self) -> None:
        """End it, as its time is over."""
        self.end_early(TimeoutError())

    def end_early(self, why: Exception) -> None:
        """End it, unless it has ended or is about to."""
        if self.task is not None and self.ending is None and self.state is not CallState.DONE:
            self.ending = why
            self.task.cancel()

    def submit(self) -> None:
        """Let it wait for a slot."""
        if CallState.WAIT not in CALL_STATES[self.state]:
            raise InvalidTransition(f"{self.state} -> submitted")
        self.state = CallState.WAIT
        counts, meter = self.function.stats
        counts.queue += 1
        meter.calls.value += 1
        meter.queued.value += 1

    def start(self, now: float) -> None:
        """Note that the exchange begins.

        Args:
            now: The loop time.
        """
        if CallState.EXEC not in CALL_STATES[self.state]:
            raise InvalidTransition(f"{self.state} -> started")
        self.state = CallState.EXEC
        counts, meter = self.function.stats
        counts.queue -= 1
        counts.running += 1
        meter.queued.value -= 1
        meter.running.value += 1
        self.is_queued = False
        self.waited_s = now - self.since
        self.record.started_at = self.recorded_at + dt.timedelta(0, self.waited_s)
        self.record.status = RUNNING

    def wait_again(self) -> None:
        """Its container was gone before a byte was handed over: it waits for another slot."""
        if self.state is not CallState.EXEC:
            raise InvalidTransition(f"{self.state} -> waiting again")
        self.state = CallState.WAIT
        counts, meter = self.function.stats
        counts.queue += 1
        counts.running -= 1
        meter.queued.value += 1
        meter.running.value -= 1
        self.record.status = ""

    def end(self, now: float, outcome: Outcome, status: int) -> None:
        """Note that it is over; count it, and its answer by the class of its status.

        Args:
            now: The loop time.
            outcome: The door by which it leaves.
            status: The status of the answer; 0 where there is none.
        """
        if CallState.DONE not in CALL_STATES[self.state]:
            raise InvalidTransition(f"{self.state} -> ended")
        counts, meter = self.function.stats
        if self.state is CallState.EXEC:
            counts.running -= 1
            meter.running.value -= 1
        else:
            counts.queue -= 1
            meter.queued.value -= 1
            self.waited_s = now - self.since
        self.state = CallState.DONE
        if status:
            meter.responses[min(max(status // 100, 2), 5)].value += 1
        if outcome is Outcome.COMPLETE:
            counts.complete += 1
            meter.completed.value += 1
        elif outcome is Outcome.BUSY or outcome is Outcome.NOT_RUN:
            counts.busy += 1
            if outcome is Outcome.BUSY:
                meter.busy.value += 1
        else:
            counts.failed += 1
            meter.failed.value += 1
            (meter.timeouts if outcome is Outcome.TIMED_OUT else meter.errors).value += 1
        self.record.response_status = status

    def log_fields(self) -> Mapping[str, Any]:
        """Return what identifies it in a log line."""
        ref = self.function.ref
        return {"call_id": self.record.id, "app_name": ref.app_name, "path": ref.name}

    def input(self) -> CallInput:
        """Return it as its function sees it."""
        record = self.record
        counted_from = self.started_at if self.function.times_run else self.since_at
        deadline = counted_from + self.function.timeout
        return CallInput(
            call_id=record.id,
            method=record.method,
            url=record.url,
            headers=record.headers,
            content_length=self.body.length,
            deadline=format_time(deadline),
            call_type=record.type,
            is_plain=self.is_plain,
            composed=self.composed,
        )


def log_step(call: ActiveCall, event: str, **fields: Any) -> None:
    """Log one step of a call at debug: a search for its id finds all of them. Callers check the level first."""
    call_id, ref = call.record.id, call.function.ref
    shown = {name: value for name, value in fields.items() if value is not None}
    _log.debug(event, id=call_id, call_id=call_id, app=ref.app_name, route=ref.name, **shown)
