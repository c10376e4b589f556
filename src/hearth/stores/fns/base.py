"""The store of fns and triggers as the rest of Hearth uses it (API specification of version 2, 5 and 6)."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Callable

from hearth.models.app import App
from hearth.models.fn import Fn, FnPatch
from hearth.models.fn_errors import FnNotFound
from hearth.models.trigger import Trigger, TriggerPatch


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FnFilter:
    """Which fns of an app to list, by name in byte order. ``per_page`` 0 means no limit; ``cursor`` is exclusive."""

    app_id: str
    name: str = ""
    cursor: str = ""
    per_page: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFilter:
    """Which triggers of an app to list, by name and id. Triggers of different fns may have one name.

    ``after`` is the name and the id of the last trigger of the page before.
    """

    app_id: str
    fn_id: str = ""
    name: str = ""
    after: tuple[str, str] = ("", "")
    per_page: int = 0


#: Check what is merged inside the update's transaction, and raise to refuse it.
FnCheck = Callable[[Fn], None]
TriggerCheck = Callable[[Trigger], None]


class FnStore(abc.ABC):
    """Fns and triggers, by their ids.

    Every operation is atomic, and concurrent updates of one fn or trigger are never lost. Reads see every write that
    was answered before. A failure of the backend is a :class:`~hearth.models.errors.StoreUnavailable`.
    """

    @abc.abstractmethod
    async def get_app_by_id(self, app_id: str) -> App:
        """Return an app. Raises ``AppsNotFound``."""

    @abc.abstractmethod
    async def get_fn(self, fn_id: str) -> Fn:
        """Return a fn. Raises ``FnNotFound``."""

    async def get_fn_named(self, app_id: str, name: str) -> Fn:
        """Return the fn of an app with this name. Raises ``FnNotFound``."""
        for fn in await self.get_fns(FnFilter(app_id=app_id, name=name)):
            return fn
        raise FnNotFound

    @abc.abstractmethod
    async def get_fns(self, which: FnFilter) -> list[Fn]:
        """Return fns by name, in byte order; none for an unknown app."""

    @abc.abstractmethod
    async def get_ready_fns(self, most: int) -> list[str]:
        """Return the ids of the fns that keep containers ready, in this order; not more than ``most``."""

    @abc.abstractmethod
    async def insert_fn(self, fn: Fn) -> Fn:
        """Store a new fn with the shape of its app; return the stored fn.

        Raises ``AppsNotFound``, ``FnAlreadyExists``.
        """

    @abc.abstractmethod
    async def update_fn(self, fn_id: str, patch: FnPatch, now: dt.datetime, check: FnCheck) -> Fn:
        """Merge a patch into a fn, check the result, store it; return the merged fn.

        Raises ``FnNotFound``, and what ``check`` raises (then nothing is stored).
        """

    @abc.abstractmethod
    async def remove_fn(self, fn_id: str) -> None:
        """Delete a fn with its triggers; its calls stay. Raises ``FnNotFound``."""

    @abc.abstractmethod
    async def get_trigger(self, trigger_id: str) -> Trigger:
        """Return a trigger. Raises ``TriggerNotFound``."""

    @abc.abstractmethod
    async def get_trigger_by_source(self, app_id: str, kind: str, source: str) -> Trigger:
        """Return the trigger of an app at a source; of several, the one with the smallest id.

        Raises ``TriggerNotFound``.
        """

    @abc.abstractmethod
    async def get_triggers(self, which: TriggerFilter) -> list[Trigger]:
        """Return triggers by name and id, in byte order; none for an unknown app."""

    @abc.abstractmethod
    async def insert_trigger(self, trigger: Trigger) -> Trigger:
        """Store a new trigger as given.

        Raises ``AppsNotFound``, ``FnNotFound``, ``TriggerForeignFn``, ``TriggerSourceTaken``, ``TriggerAlreadyExists``.
        """

    @abc.abstractmethod
    async def update_trigger(
        self, trigger_id: str, patch: TriggerPatch, now: dt.datetime, check: TriggerCheck
    ) -> Trigger:
        """Merge a patch into a trigger, check the result, store it; return the merged trigger.

        Raises ``TriggerNotFound``, what ``check`` raises, and what :meth:`insert_trigger` does (then nothing is
        stored).
        """

    @abc.abstractmethod
    async def remove_trigger(self, trigger_id: str) -> None:
        """Delete a trigger. Raises ``TriggerNotFound``."""
