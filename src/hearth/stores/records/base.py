"""The store of calls' records and logs as the rest of Hearth uses it (storage specification 1, 4)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence

from hearth.models.call import QUEUED, Call
from hearth.models.call_result import CallResult
from hearth.models.dead_letter import DeadLetter, DeadLetterCount
from hearth.models.log_reader import LogReader


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """Which calls to list, newest (largest id) first. Both time bounds are exclusive, on ``created_at``."""

    app_name: str = ""
    path: str = ""
    cursor: str = ""
    per_page: int = 0
    status: str = ""
    from_time: dt.datetime | None = None
    to_time: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The number of calls and logs that a step of a sweep removed, or would remove."""

    calls: int = 0
    logs: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters to list, the newest failures first, behind a ``DeadLetter.cursor``.

    ``died_from`` is the time of the first failure, inclusive.
    """

    app_name: str
    per_page: int
    path: str = ""
    cursor: str = ""
    died_from: dt.datetime | None = None


class RecordStore(abc.ABC):
    """Records of calls, and their logs.

    Every operation is atomic: it happens whole or not at all, also when it is cancelled. Reads see every write that was
    answered before. A failure of the backend is a :class:`~hearth.models.errors.StoreUnavailable` with the cause
    chained.
    """

    @abc.abstractmethod
    async def get_call(self, app_name: str, call_id: str) -> Call:
        """Return a call's stored fields. Raises ``DatastoreEmptyCallID``, ``CallNotFound``."""

    @abc.abstractmethod
    async def get_calls(self, which: CallFilter) -> list[Call]:
        """Return calls, newest first."""

    async def get_result(self, app_name: str, call_id: str) -> CallResult | None:
        """Return the result of a call that has ended; ``None`` if it is not kept."""
        return None

    async def remove_results(self, now: dt.datetime, most: int) -> int:
        """Remove some of the results that have expired; return how many."""
        return 0

    @abc.abstractmethod
    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> list[bool]:
        """Store ended calls and, where given, their logs, in one transaction.

        A sync call replaces one of the same id. An async call may have been ended by another node, too: its first final
        record stays, with its log and its result, and so does that of a later attempt. Return false where that is
        another one than the one given.
        """

    def submit(self, ended: Sequence[tuple[Call, bytes | None]], done: Callable[[Exception | None], object]) -> bool:
        """Begin to do as :meth:`put_calls`; of a call that is given twice the last record and log count.

        Return false, and do nothing, if a call is async, or if this store can only :meth:`put_calls`.

        Args:
            ended: The calls, with their logs.
            done: Called on this loop with the error, or ``None``, when it has ended; never before this returns.
        """
        return False

    @abc.abstractmethod
    async def add_calls(self, accepted: Sequence[Call]) -> None:
        """Store calls that are not stored yet, in one transaction; stored ones stay as they are."""

    @abc.abstractmethod
    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        """Compare and swap: store each call that is not stored yet, or is ``queued``, as given; leave the others.

        One that is ``running`` in an earlier attempt is stored, too: that attempt has ended.

        Return for each the status that kept it from being stored, ``""`` if it was stored.
        """

    @abc.abstractmethod
    async def retry_calls(self, again: Sequence[tuple[Call, bytes | None]]) -> None:
        """Compare and swap: store each call as ``queued`` for its next attempt, unless it has come further.

        A call has come further if it has ended, or if the number of its attempt is as high as that of the one given.
        """

    @abc.abstractmethod
    async def cancel_call(self, app_name: str, call_id: str, end: Callable[[Call], Call]) -> Call:
        """Compare and swap: end an accepted call that has not ended, with its result.

        Args:
            app_name: Its app.
            call_id: The call.
            end: Returns the call as it ends, given the stored one.

        Raises:
            CallNotFound: There is no such call.
            CallEnded: It has ended.
        """

    @abc.abstractmethod
    async def get_dead_letters(self, which: DeadLetterFilter) -> list[DeadLetter]:
        """Return dead letters without their payloads."""

    @abc.abstractmethod
    async def get_dead_letter(self, app_name: str, call_id: str) -> tuple[DeadLetter, bytes]:
        """Return a dead letter with its payload. Raises ``DeadLetterNotFound``."""

    @abc.abstractmethod
    async def claim_dead_letter(self, app_name: str, call_id: str, redriven_as: str) -> str:
        """Compare and swap: store the id of the call that a redrive makes of a dead letter, unless there is one.

        Return the stored one. Raises ``DeadLetterNotFound``.
        """

    @abc.abstractmethod
    async def remove_dead_letter(self, app_name: str, call_id: str) -> bool:
        """Remove a dead letter; false if there is none."""

    @abc.abstractmethod
    async def remove_dead_letters(self, before: dt.datetime, most: int) -> int:
        """Remove some dead letters that failed before a time, oldest first; return how many."""

    @abc.abstractmethod
    async def count_dead_letters(self) -> list[DeadLetterCount]:
        """Count the dead letters of each app that has some."""

    @abc.abstractmethod
    async def cancelled(self, call_ids: Sequence[str]) -> set[str]:
        """Return those of some calls that were cancelled."""

    @abc.abstractmethod
    async def update_call(self, before: Call, after: Call) -> None:
        """Compare and swap: store ``after``, if what is stored equals ``before`` (times to the second).

        Raises ``CallNotFound``, ``DatastoreCannotUpdateCall``, and ``DatastoreCannotSwap`` if the two are not one call.
        """

    async def remove_calls(self, before: dt.datetime, most: int) -> Removed:
        """Remove some of the oldest ended calls made before a time, with their logs; 0 once there is none left."""
        return Removed()

    async def remove_logs(self, before: dt.datetime, most: int) -> Removed:
        """Remove some of the oldest logs of calls that were made before a time; their records stay."""
        return Removed()

    async def count_calls(self, before: dt.datetime) -> Removed:
        """Count what :meth:`remove_calls` would remove in all."""
        return Removed()

    async def count_logs(self, before: dt.datetime, calls_before: dt.datetime | None = None) -> Removed:
        """Count what :meth:`remove_logs` would remove in all, once calls made before ``calls_before`` are removed."""
        return Removed()

    async def time_beyond(self, log_bytes: int) -> dt.datetime | None:
        """Return the time before which logs have to go, so that the rest has at most ``log_bytes``; ``None``: none."""
        return None

    async def count_queued(self, app_name: str, most: int, path: str = "") -> int:
        """Return how many calls of an app, or of one of its functions, are ``queued``; ``most`` if there are more."""
        return len(await self.get_calls(CallFilter(app_name=app_name, path=path, status=QUEUED, per_page=most)))

    async def stored_bytes(self, app_name: str, most: int) -> int:
        """Return the bytes of the results, logs and dead letters of an app; at least ``most`` if there are more."""
        return 0

    async def shrink(self) -> bool:
        """Return some of the space of removed rows to the disk, without making others wait; false if none is left."""
        return False

    async def nth_newest_call(self, n: int) -> dt.datetime | None:
        """Return when the call was made of which ``n`` are newer; ``None`` if there are fewer calls."""
        return None

    @abc.abstractmethod
    async def get_log(self, app_name: str, call_id: str) -> LogReader:
        """Open a call's log, once the call has ended. Raises ``CallLogNotFound`` (also for another app's call)."""
