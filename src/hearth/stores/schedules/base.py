"""The store of schedules as the rest of Hearth uses it."""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hearth.models.schedule import Firing, Schedule

#: Returns a schedule to store, from the id of the app and what is stored under its name. It may raise.
Change = Callable[[str, Schedule | None], Schedule]


class Claim(NamedTuple):
    """A decision about a schedule.

    Attributes:
        seen: The schedule as it was read.
        firings: The firing times that are dealt with now.
        next_at: The next firing time; ``ZERO`` for none.
        now: The clock of the node.
    """

    seen: Schedule
    firings: tuple[Firing, ...]
    next_at: dt.datetime
    now: dt.datetime


class ScheduleStore(abc.ABC):
    """Schedules of apps. They are deleted with their app.

    Every operation is atomic. A failure of the backend is a :class:`~hearth.models.errors.StoreUnavailable`.
    """

    @abc.abstractmethod
    async def put_schedule(self, app_name: str, name: str, change: Change) -> Schedule:
        """Store what ``change`` returns. Raises ``AppsNotFound``, ``SchedulesTooMany``, and what ``change`` raises."""

    @abc.abstractmethod
    async def list_schedules(self, app_name: str) -> list[Schedule]:
        """Return an app's schedules by name. Raises ``AppsNotFound``."""

    @abc.abstractmethod
    async def get_schedule(self, app_name: str, name: str) -> Schedule:
        """Return a schedule. Raises ``AppsNotFound``, ``SchedulesNotFound``."""

    @abc.abstractmethod
    async def remove_schedule(self, app_name: str, name: str) -> None:
        """Delete a schedule with its firings. Raises ``AppsNotFound``, ``SchedulesNotFound``."""

    @abc.abstractmethod
    async def next_due(self) -> dt.datetime | None:
        """Return the earliest firing time of all schedules."""

    @abc.abstractmethod
    async def due_schedules(self, now: dt.datetime, most: int) -> list[Schedule]:
        """Return the schedules whose next firing time has come, the longest due first."""

    @abc.abstractmethod
    async def schedules_ahead(self, now: dt.datetime, most: int) -> list[Schedule]:
        """Return schedules whose next firing time was computed by a clock that was later than ``now``."""

    @abc.abstractmethod
    async def claim_firings(self, claims: Sequence[Claim]) -> list[list[Firing]]:
        """Store firings and next firing times, for each schedule that has still the next firing time that was seen.

        Of several nodes that claim the same firing one succeeds.

        Returns:
            For each claim the firings that are this node's now.
        """

    @abc.abstractmethod
    async def settle_firings(self, firings: Sequence[Firing]) -> None:
        """Store the states and errors of claimed firings."""

    @abc.abstractmethod
    async def stale_firings(self, before: dt.datetime, most: int) -> list[Firing]:
        """Return firings that were claimed before a time, and that nobody has settled."""

    @abc.abstractmethod
    async def take_over(self, firing: Firing, now: dt.datetime) -> Schedule | None:
        """Claim a stale firing; ``None`` if another node was faster, or its schedule is gone (then it is deleted)."""

    @abc.abstractmethod
    async def remove_firings(self, before: dt.datetime, most: int) -> int:
        """Delete settled firings that were claimed before a time; return their number, at most ``most``."""
