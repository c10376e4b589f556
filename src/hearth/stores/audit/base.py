"""The store of the audit log as the rest of Hearth uses it."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Sequence

from hearth.models.audit import AuditEvent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which events to list, newest (largest id) first. ``cursor`` is exclusive.

    Attributes:
        principal: A principal, or the id of a token; empty for all.
        app: The name of an app; empty for all.
        apps: Only events of these apps; ``None`` for all, also those of no app.
    """

    cursor: str = ""
    per_page: int = 0
    app: str = ""
    principal: str = ""
    apps: Sequence[str] | None = None


class AuditStore(abc.ABC):
    """Events of the audit log, by id.

    Every operation is atomic. Reads see every write that was answered before. A failure of the backend is a
    :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def add_events(self, events: Sequence[AuditEvent]) -> None:
        """Store events, in one transaction."""

    @abc.abstractmethod
    async def get_events(self, which: AuditFilter) -> list[AuditEvent]:
        """Return events, newest first."""

    @abc.abstractmethod
    async def remove_events(self, before: dt.datetime, most: int) -> int:
        """Remove some of the oldest events before a time; return how many, 0 once there is none left."""
