"""What the rest of Hearth may rely on to keep accepted async calls (storage specification 7)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Final

from hearth.models.call import Call

#: Seconds for which a reserved message is hidden from everybody else, unless its lease is renewed.
VISIBILITY_TIMEOUT_S: Final = 60.0
PRIORITIES: Final = (2, 1, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Reserved:
    """A message that only its holder may settle.

    Attributes:
        lease: Names this reservation; worthless once the visibility timeout has passed.
        deliveries: How often it has been reserved, this time included.
        until: Loop time until which nobody else can have it, unless the lease is renewed.
        fault: Why nobody can run it; its call then has an identity only.
    """

    call: Call
    lease: str
    deliveries: int
    until: float
    fault: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a queue and nobody has taken.

    Attributes:
        length: Messages, also those that are hidden for a while.
        oldest: When the oldest call that could be taken now was made; ``None`` if there is none.
    """

    length: int
    oldest: dt.datetime | None


class Queue(abc.ABC):
    """Accepted async calls, by priority (2 before 1 before 0), in order of arrival within one.

    Every operation is atomic, also when it is cancelled: a message is never lost and never handed to two. A reserved
    message that is neither settled nor renewed within the visibility timeout returns to its old place. A backend's own
    failure is a :class:`~hearth.models.errors.StoreUnavailable`.
    """

    visibility_s: float

    @abc.abstractmethod
    async def push(self, calls: Sequence[Call]) -> None:
        """Keep calls, all or none; durable when this returns, where the backend is. ``delay`` hides one so long.

        A call whose message is there already, ready, hidden or reserved, stays as it is: pushing may be tried again.
        """

    @abc.abstractmethod
    async def reserve(self, limit: int) -> list[Reserved]:
        """Take up to ``limit`` messages, without waiting. What names no call is dropped with a log line."""

    @abc.abstractmethod
    async def wait(self) -> None:
        """Wait until there may be something to reserve."""

    @abc.abstractmethod
    async def settle(self, leases: Sequence[str]) -> list[bool]:
        """Forget messages for good; false where the lease is no longer the current one."""

    @abc.abstractmethod
    async def renew(self, leases: Sequence[str]) -> list[bool]:
        """Begin the visibility timeout anew; false where the lease is no longer the current one."""

    @abc.abstractmethod
    async def release(self, lease: str, delay_s: float = 0.0) -> bool:
        """Give a message back to its old place, hidden for ``delay_s``; false if the lease is not the current one."""

    @abc.abstractmethod
    async def backlog(self) -> Backlog:
        """What waits; cheap, however long the queue is."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish what is under way and let go of the backend."""
