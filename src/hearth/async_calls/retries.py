"""The decision about an attempt that has ended. Pure: no clock, no store."""

from __future__ import annotations

import dataclasses
import enum

import msgspec

from hearth.agent.call import FunctionAnswered
from hearth.agent.outcomes import Stopped
from hearth.models.call import QUEUED, Call
from hearth.models.errors import CallCancelled, CallTimeout, InternalError
from hearth.models.retry import FULL, MAX_ATTEMPTS, MAX_ERROR, Attempt, Failure, RetryPolicy
from hearth.models.times import ZERO, format_time


class Interrupted(InternalError):
    """The node that ran the call died."""

    def __init__(self) -> None:
        super().__init__("the server stopped while the call was running; it may have run in part")


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """Run the call again after some seconds."""

    after_s: float


class Verdict(enum.Enum):
    """The call has ended."""

    DONE = "done"
    DEAD = "dead"  # it failed, and all that its policy allows was tried


def decide(failure: Failure | None, attempt: int, policy: RetryPolicy, chance: float) -> Retry | Verdict:
    """Return what becomes of a call.

    Args:
        failure: How the attempt failed; ``None`` if it did not.
        attempt: Its number, 1 for the first.
        policy: That of the call.
        chance: Any number from 0 up to, not including, 1.
    """
    if failure is None:
        return Verdict.DONE
    if failure not in policy.on or attempt >= policy.attempts:
        return Verdict.DEAD
    wait_s = min(policy.max_s, policy.backoff_s * policy.factor ** (attempt - 1))
    return Retry(wait_s * chance if policy.jitter == FULL else wait_s)


def failure_of(error: Exception | None) -> Failure | None:
    """Return how an attempt failed; ``None`` if it did not, or was cancelled."""
    if error is None or isinstance(error, CallCancelled):
        return None
    if isinstance(error, CallTimeout):
        return Failure.TIMEOUT
    if isinstance(error, FunctionAnswered):
        return Failure.STATUS_5XX
    return Failure.INTERRUPTED if isinstance(error, Interrupted | Stopped) else Failure.ERROR


def next_attempt(ended: Call, node: str, deliveries: int) -> Call:
    """Return a call as its next attempt finds it, with the one that has ended among the past ones.

    Args:
        ended: The call with the end of its attempt.
        node: Where that ran.
        deliveries: How often the queue has handed the call out.
    """
    past = Attempt(
        attempt=ended.attempt,
        node=node,
        started_at="" if ended.started_at == ZERO else format_time(ended.started_at),
        completed_at=format_time(ended.completed_at),
        status=ended.status,
        error=ended.error[:MAX_ERROR],
    )
    return msgspec.structs.replace(
        ended,
        attempt=ended.attempt + 1,
        attempts=(*ended.attempts, past)[-MAX_ATTEMPTS:],
        earlier_deliveries=deliveries,
        status=QUEUED,
        delay=0,
        started_at=ZERO,
        completed_at=ZERO,
        error="",
        stats=[],
        response_status=0,
        result=None,
        dead=False,
    )
