"""The interface of queues, which keep accepted async calls (storage specification 7)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Collection, Sequence
from typing import Final

from hearth.models.call import Call

#: Seconds for which a reserved message is hidden from others, unless its lease is renewed.
VISIBILITY_TIMEOUT_S: Final = 60.0
PRIORITIES: Final = (2, 1, 0)
#: Bytes of messages after which a reservation takes no more. They are read in one turn of the event loop.
MAX_RESERVED_BYTES: Final = 16 << 20
#: Bytes above which encoding a message ends a turn of the event loop.
LARGE_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Reserved:
    """A message that only its holder may acknowledge.

    Attributes:
        lease: Identifies this reservation; not valid after the visibility timeout.
        deliveries: How often the message has been reserved, including this time.
        until: Loop time until which no other can reserve it, unless the lease is renewed.
        fault: Why no node can run the call, which then has an identity only; empty if it is valid.
    """

    call: Call
    lease: str
    deliveries: int
    until: float
    fault: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Backlog:
    """The messages of a queue that are not reserved.

    Attributes:
        length: Number of messages, including hidden ones.
        oldest: Creation time of the oldest call that can be reserved now; ``None`` if there is none.
    """

    length: int
    oldest: dt.datetime | None


class Queue(abc.ABC):
    """Accepted async calls. Apps take turns, in each round as many as their weights say (one by default).

    Calls of an app come by priority (2 before 1 before 0), then by arrival.

    To take the next message costs the same whatever the backlog is. With a backlog of one app, the first message of
    another app is next. Messages that an earlier version stored without their app take turns as one app.

    Every operation is atomic, also when it is cancelled: a message is never lost and never handed to two. A reserved
    message that is neither acknowledged nor renewed within the visibility timeout returns to its old place.

    A failure of the backend is a :class:`~hearth.models.errors.StoreUnavailable`.
    """

    visibility_s: float

    @abc.abstractmethod
    async def push(self, calls: Sequence[Call]) -> None:
        """Store calls, all or none; durable when this returns, if the backend is. A call is hidden for its ``delay``.

        A call whose message exists already, ready, hidden or reserved, stays as it is, so that a push can be repeated.

        Raises:
            StoreRefused: The queue never takes one of the messages.
            StoreUnavailable: The backend failed.
        """

    @abc.abstractmethod
    async def reserve(self, limit: int, without: Collection[str] = ()) -> list[Reserved]:
        """Take up to ``limit`` messages of all apps except some, fewer if they are large, without waiting.

        A message that identifies no call belongs to the call that was pushed with it: that has no path, and the message
        as its payload. One that names no app either is a call of ``UNKNOWN_APP``.
        """

    @abc.abstractmethod
    async def wait(self, without: Collection[str] = ()) -> None:
        """Wait until there may be a message to reserve, of any app except some."""

    @abc.abstractmethod
    async def acknowledge(self, leases: Sequence[str]) -> list[bool]:
        """Delete messages; false where the lease is no longer the current one."""

    @abc.abstractmethod
    async def renew(self, leases: Sequence[str]) -> list[bool]:
        """Restart the visibility timeout; false where the lease is no longer the current one."""

    @abc.abstractmethod
    async def release(self, lease: str, delay_s: float = 0.0) -> bool:
        """Return a message to its old place, hidden for ``delay_s``; false if the lease is not the current one."""

    @abc.abstractmethod
    async def replace(self, lease: str, call: Call, delay_s: float) -> bool:
        """Put a call in the place of a leased message, and end the lease; false if it is not the current one.

        It keeps the place and the deliveries of the message, is hidden for ``delay_s``, and is as durable as one that
        was pushed.

        Raises:
            StoreRefused: The queue never takes the message.
            StoreUnavailable: The backend failed.
        """

    @abc.abstractmethod
    async def discard(self, call_id: str) -> bool:
        """Delete the message of a call that is not reserved, ready or hidden; false if there is none."""

    async def check(self) -> None:
        """Check that calls can be stored, with a write that leaves no trace where the queue supports one.

        Raises:
            StoreUnavailable: They cannot; the text says why.
        """
        await self.acknowledge([])

    @abc.abstractmethod
    async def backlog(self) -> Backlog:
        """Return what waits, in a time that does not grow with the queue."""

    @abc.abstractmethod
    async def weigh(self, app_name: str, weight: int) -> None:
        """Give an app so many turns in a round. It holds at least until the process ends."""

    @abc.abstractmethod
    async def bytes_of(self, app_name: str) -> int:
        """Return the bytes of the messages of an app, including reserved ones, in a time that does not grow with it."""

    async def images(self) -> set[str] | None:
        """Return the images of all calls, including reserved ones; ``None`` if they are not known.

        Reads the queue in short steps. Calls that are pushed meanwhile may be left out.
        """
        return None

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish running operations and close the backend."""
