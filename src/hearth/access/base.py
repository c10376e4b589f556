"""What the agent may rely on to find definitions and keep records; local and remote behave alike."""

from __future__ import annotations

import abc
import dataclasses

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import HearthError
from hearth.models.route import Route
from hearth.queues.base import Backlog, Reserved


@dataclasses.dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that reached a final status, with its log (at most the configured limit; already cut and marked)."""

    call: Call
    log: bytes


class AlreadyStarted(HearthError):
    """Somebody has started this call before; ``status`` is how far it came."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the call was started before: {status}")
        self.status = status


class DataAccess(abc.ABC):
    """Definitions and records.

    Errors are those of ``models.errors``: an :class:`~hearth.models.errors.ApiError` where a client is to see it, else
    an :class:`~hearth.models.errors.InternalError`. No backend's exception passes.
    """

    @abc.abstractmethod
    async def get_app(self, name: str) -> App:
        """The app.

        Raises:
            AppsNotFound: There is none.
        """

    @abc.abstractmethod
    async def get_route(self, app_name: str, path: str) -> Route:
        """The route; ``path`` is matched exactly.

        Raises:
            RoutesNotFound: There is none.
        """

    @abc.abstractmethod
    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store records and logs of ended calls in one transaction.

        Storing a call again changes nothing. Where another node has recorded the end of an accepted call, that stays.
        """

    @property
    @abc.abstractmethod
    def visibility_s(self) -> float:
        """Seconds for which a dequeued call is its holder's, unless renewed."""

    @abc.abstractmethod
    async def enqueue(self, call: Call) -> None:
        """Accept an async call: durable when this returns, with a record that says ``queued``.

        Raises:
            InternalError: It was not accepted; the call does not exist.
        """

    @abc.abstractmethod
    async def dequeue(self, limit: int) -> list[Reserved]:
        """Wait until there are accepted calls, and take up to ``limit``. Cancelling loses none."""

    @abc.abstractmethod
    async def start(self, call: Call) -> None:
        """Store an async call as running, if nobody has started it before: compare and swap.

        Raises:
            AlreadyStarted: Somebody has.
        """

    @abc.abstractmethod
    async def settle(self, leases: list[str]) -> list[bool]:
        """Forget the messages of calls that have ended; false where the lease is no longer ours."""

    @abc.abstractmethod
    async def renew(self, leases: list[str]) -> list[bool]:
        """Keep calls that run, or wait here, hidden from others; false where the lease is no longer ours."""

    @abc.abstractmethod
    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        """Give back a call that was not started."""

    async def backlog(self) -> Backlog | None:
        """What waits in the queue; ``None`` where that is not known."""
        return None

    @abc.abstractmethod
    async def interrupted(self, call: Call) -> None:
        """Store that a call which is recorded as running ended with nobody there; ``call`` has the final fields."""
