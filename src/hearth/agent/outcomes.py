"""The outcome of a call: its error as the client, the record and the counters see it. Pure functions."""

from __future__ import annotations

from typing import Final

from hearth.access.base import AlreadyStarted
from hearth.agent.call import ActiveCall, ClientGone, Draining, FunctionAnswered, NotStarted, last_line
from hearth.agent.meters import Outcome
from hearth.agent.resources import NeverFits
from hearth.drivers.base import (
    PULL,
    DriverError,
    ImageError,
    ImageHasVolumes,
    ImageNotFound,
    ImageRefused,
    NeverListened,
    NotReady,
    OutOfTime,
    StartFailed,
)
from hearth.models.call import CANCELLED, ERROR, EXPIRED, TIMEOUT, Call
from hearth.models.errors import (
    ApiError,
    CallCancelled,
    CallExpired,
    CallTimeout,
    ContainerExited,
    ContainerStartFailed,
    FunctionFailed,
    FunctionGone,
    FunctionRaised,
    ImageHasVolume,
    ImagePullFailed,
    ImagePullTimeout,
    InternalError,
    QuotaExceeded,
    ServerBusy,
    StartedBadly,
    StartTimeout,
    is_shortage,
)
from hearth.telemetry.logs import get_logger

#: The first status that says that the server, here the function, is at fault; and Hearth's own for internal errors.
SERVER_ERROR: Final = 500

#: What a failed pull is if nobody gave it a status: in API v1, and in API v2.
_PULL_FAILED: Final = (500, 502)

#: Errors of which the function most likely logged the cause last.
_LOGGED: Final = (ContainerExited, FunctionGone, FunctionRaised, StartedBadly, StartTimeout)

#: Statuses of calls that failed, and can be tried again.
_DEAD: Final = frozenset({ERROR, TIMEOUT})

_log = get_logger(__name__)


class Stopped(InternalError):
    """The node stopped and did not wait for the call."""

    def __init__(self) -> None:
        super().__init__("the server was stopped before the call ended")


def explain(call: ActiveCall, exc: Exception) -> Exception:
    """Return the error as the client and the record see it."""
    if isinstance(exc, TimeoutError):
        if call.started:
            return CallTimeout()
        function = call.function
        return (None if call.is_queued else function.share.crowded(function.spec.amount)) or ServerBusy()
    if isinstance(exc, CallCancelled) and not call.started:
        why = NotStarted("it was cancelled while it waited")
        why.__cause__ = AlreadyStarted(CANCELLED)
        return why
    if isinstance(exc, NeverFits):
        return ServerBusy(retry_after=False)
    if isinstance(exc, DriverError) and is_shortage(exc):  # nothing ran: another node may run it
        _log.error("out of file descriptors", call_id=call.record.id, error=str(exc))
        return ServerBusy()
    if isinstance(exc, NotReady):
        call.log.write(exc.opening)
    translated = _start_error(call, exc)
    if translated is None:
        return exc
    translated.__cause__ = exc
    return translated


def _start_error(call: ActiveCall, exc: Exception) -> Exception | None:
    image = call.function.spec.image
    if isinstance(exc, ImageNotFound):
        return ImagePullFailed(image, exc.reason, 404)
    if isinstance(exc, ImageRefused | ImageError):
        return ImagePullFailed(image, exc.reason, exc.status or _PULL_FAILED[_is_of_fn(call.record)])
    if isinstance(exc, ImageHasVolumes):
        return ImageHasVolume()
    if isinstance(exc, OutOfTime) and exc.phase == PULL:
        return ImagePullTimeout()
    if isinstance(exc, StartFailed) and exc.image_fault:
        return ContainerStartFailed(exc.reason)
    if isinstance(exc, NotReady):
        return (StartTimeout if isinstance(exc, NeverListened) else StartedBadly)(detail=str(exc))
    return None


def status_of(error: Exception) -> int:
    """Return the status of an error's answer."""
    return error.code if isinstance(error, ApiError) else SERVER_ERROR


def response_status(call: ActiveCall, error: Exception, *, started: bool) -> int:
    """Return the status that the client saw, or would have seen if it had waited; 0 if it got no answer."""
    if call.sink.started or isinstance(error, FunctionAnswered):
        return call.answered
    stays_queued = call.is_queued and not started and isinstance(error, ServerBusy)
    if stays_queued or isinstance(error, ClientGone | NotStarted):
        return 0
    return status_of(error)


def outcome_of(call: ActiveCall, error: Exception, *, started: bool) -> Outcome:
    """Return how a failed call counts."""
    if started:
        return Outcome.TIMED_OUT if isinstance(error, CallTimeout) else Outcome.FAILED
    if isinstance(error, NotStarted) or (isinstance(error, Draining) and call.is_queued):
        return Outcome.NOT_RUN
    if isinstance(error, QuotaExceeded):
        return Outcome.BUSY
    return Outcome.BUSY if isinstance(error, ServerBusy) and not isinstance(error, Draining) else Outcome.FAILED


def fail(record: Call, log: bytes, error: Exception) -> None:
    """Set the status and the error of the record of a call that failed."""
    if isinstance(error, CallTimeout):
        record.status = TIMEOUT
        kind = "fn" if _is_of_fn(record) else "route"
        record.error = f"timed out after {record.timeout:g} s (timeout of the {kind})"
    elif isinstance(error, CallExpired | CallCancelled):
        record.status = EXPIRED if isinstance(error, CallExpired) else CANCELLED
        record.error = str(error)
    else:
        record.status = ERROR
        record.error = _text(error, log)
    record.dead = record.joins_dead_letters and record.status in _DEAD


def _is_of_fn(record: Call) -> bool:
    """Return True for the call of a fn, whose name stands where a route has its path."""
    return not record.path.startswith("/")


def _text(error: Exception, log: bytes) -> str:
    """Return an error for the record, with what clients do not see: details, and the last line of a program."""
    text = str(error) or type(error).__name__
    if isinstance(error, FunctionFailed) and error.detail:
        text = f"{text}: {error.detail}"
    if isinstance(error, _LOGGED) and (words := last_line(log)):
        return f"{text}: {words}; see the call's log"
    return text
