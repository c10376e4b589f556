"""The store of functions' logs as the rest of Hearth uses it (storage specification 6)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Sequence

from hearth.models.errors import StoreUnavailable
from hearth.models.log_reader import LogReader


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """The log of one call; any bytes, also none. The recorder has cut it at its limit, so it fits in memory."""

    app_name: str
    call_id: str
    text: bytes


class LogsLost(StoreUnavailable):
    """Some logs could not be stored.

    Args:
        lost: How many; the others were stored.
        reason: What the store said to the first of them.
    """

    def __init__(self, lost: int, reason: str) -> None:
        super().__init__(reason)
        self.lost = lost


class LogStore(abc.ABC):
    """Logs by call. A store outside of the datastore keeps those of a removed app until they are old.

    A backend's own failure is a :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections."""

    @abc.abstractmethod
    async def put_logs(self, logs: Sequence[Log]) -> None:
        """Store logs; each replaces one of the same call.

        Raises:
            LogsLost: Some were not stored.
        """

    @abc.abstractmethod
    async def get_log(self, app_name: str, call_id: str) -> LogReader:
        """Open a call's log. What fails while it is read is a ``StoreUnavailable``, too.

        Raises:
            CallLogNotFound: There is none, or it is another app's call.
        """

    def remove_logs(self, before: dt.datetime, *, dry_run: bool = False) -> AsyncIterator[int]:
        """Remove old logs in short steps; yield how many each of them removed.

        A store that cannot do it leaves them, and yields nothing.

        Args:
            before: Logs of calls that were made, or stored, before this time are removed.
            dry_run: Count, and remove nothing.

        Raises:
            StoreUnavailable: The backend failed; what was removed before stays removed.
        """
        return _nothing()

    async def time_beyond(self, log_bytes: int) -> dt.datetime | None:
        """Return the time before which logs have to go, so that the rest has at most ``log_bytes``; ``None``: none."""
        return None

    async def stored_bytes(self, app_name: str, most: int) -> int:
        """Return the bytes of the logs of an app; at least ``most`` if there are more."""
        return 0


async def _nothing() -> AsyncIterator[int]:
    nothing: tuple[int, ...] = ()
    for count in nothing:
        yield count
