"""The audit log of a node: changes through its API, and requests that it refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope

from hearth.aio.clock import Clock
from hearth.aio.group_commit import GroupCommit
from hearth.authorize.attempts import AddressLimit
from hearth.models.audit import AuditEvent
from hearth.models.errors import HearthError
from hearth.models.principal import Principal
from hearth.stores.audit.base import AuditStore
from hearth.telemetry.logs import get_logger

#: Refused requests of an address that are noted at once, and seconds until one more is.
_BURST: Final = 20
_PAUSE_S: Final = 3.0
#: The same for all addresses together: a client may have many.
_BURST_OF_ALL: Final = 1_000
_PAUSE_OF_ALL_S: Final = 1.0
#: Refused requests that wait for the database; further ones are only logged.
_MOST_WAITING: Final = 1_000
_MOST_CHARACTERS: Final = 256

_KEY: Final = "hearth.concerns"

_log = get_logger(__name__)


class AuditLog:
    """Logs events, and stores them.

    Args:
        next_id: Makes ids that sort by time.
    """

    def __init__(self, store: AuditStore, clock: Clock, next_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._next_id = next_id
        self._limit = AddressLimit(clock, burst=_BURST, pause_s=_PAUSE_S)
        self._limit_of_all = AddressLimit(clock, burst=_BURST_OF_ALL, pause_s=_PAUSE_OF_ALL_S)
        self._writes: GroupCommit[AuditEvent, None] = GroupCommit(self._write)

    async def changed(self, scope: Scope, principal: Principal, action: str, app: str, status: int) -> None:
        """Note a change before its answer is sent. The change stays, also if the event cannot be stored."""
        event = self._event(scope, principal, action, app, status)
        _log.info("changed", **_fields(event))
        try:
            await self._writes.put(event)
        except HearthError as exc:
            _log.error("audit event not stored", error=str(exc), **_fields(event))

    def refused(self, scope: Scope, principal: Principal, action: str, app: str, status: int) -> None:
        """Note a refused request; of an address that sends many, and of many addresses, some."""
        event = self._event(scope, principal, action, app, status)
        if self._limit.take(event.address) > 0 or self._limit_of_all.take("") > 0:
            return
        _log.warning("refused", **_fields(event))
        if self._writes.waiting < _MOST_WAITING:
            self._writes.put(event).add_done_callback(_report)

    async def close(self) -> None:
        """Wait until all events are stored."""
        await self._writes.close()

    async def _write(self, events: list[AuditEvent]) -> list[None]:
        await self._store.add_events(events)
        return [None] * len(events)

    def _event(self, scope: Scope, principal: Principal, action: str, app: str, status: int) -> AuditEvent:
        noted: dict[str, str] = scope.get(_KEY, {})
        resource = f"{scope['method']} {scope['path']}"
        if name := noted.get("name"):
            resource += f" {name}"
        return AuditEvent(
            id=self._next_id(),
            created_at=self._clock.now(),
            principal=_storable(str(principal)),
            token_id=principal.token_id,
            action=action,
            app=_storable(noted.get("app") or app),
            resource=_storable(resource),
            status=status,
            address=scope["client"][0] if scope.get("client") else "",
        )


def concerns(scope: Scope, *, app: str = "", name: str = "") -> None:
    """Note for the audit log what a request concerns that its path does not name.

    Args:
        scope: Of the request.
        app: The app.
        name: The name or the id of what was created.
    """
    scope[_KEY] = {"app": app, "name": name}


def _report(written: Any) -> None:
    if not written.cancelled() and (error := written.exception()) is not None:
        _log.error("audit event not stored", error=str(error))


def _fields(event: AuditEvent) -> dict[str, Any]:
    names = ("principal", "token_id", "action", "app", "resource", "status", "address")
    return {name: value for name in names if (value := getattr(event, name))}


def _storable(text: str) -> str:
    """Return a text that every database takes: clients choose paths."""
    cut = text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}")
