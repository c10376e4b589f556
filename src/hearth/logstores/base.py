"""What the rest of Hearth may rely on to keep functions' logs (storage specification 6)."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

from hearth.models.errors import StoreUnavailable


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """What one call wrote; any bytes, also none. The recorder has cut it at its limit, so it fits in memory."""

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
    """Logs by call. Nobody removes them one by one; a store outside of the datastore keeps those of a removed app.

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
    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log.

        Raises:
            CallLogNotFound: There is none, or it is another app's call.
        """
