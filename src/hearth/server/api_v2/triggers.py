"""The triggers of API v2: /v2/triggers, and /v2/runner for those who look one up by its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action
from hearth.models.errors import AppsNotFound
from hearth.models.fn_errors import (
    TriggerCreatedAtProvided,
    TriggerIdMismatch,
    TriggerIdProvided,
    TriggerMissingAppId,
    TriggerNotFound,
    TriggerUpdatedAtProvided,
)
from hearth.models.times import ZERO
from hearth.models.trigger import new_trigger, validate_trigger
from hearth.server.api_v1.decode import per_page
from hearth.server.api_v2 import decode
from hearth.server.api_v2.encode import page_json, trigger_json
from hearth.server.api_v2.request import FnRequest
from hearth.server.api_v2.scope import AppChanged, Scope
from hearth.server.audit import concerns
from hearth.stores.fns.base import FnStore, TriggerFilter


class Triggers:
    """The operations on triggers.

    Args:
        store: The triggers.
        scope: Finds them, and their apps.
        next_id: Returns a new id.
        changed: Called with the name of the app whose trigger was changed or removed.
    """

    def __init__(
        self, store: FnStore, scope: Scope, clock: Clock, next_id: Callable[[], str], changed: AppChanged
    ) -> None:
        self._store = store
        self._scope = scope
        self._clock = clock
        self._next_id = next_id
        self._changed = changed

    async def list(self, request: FnRequest) -> dict[str, Any]:
        """Return a page of an app's triggers; none of an app that the sender does not reach."""
        if not (app_id := request.query("app_id")):
            raise TriggerMissingAppId
        page = per_page(request.query("per_page"))
        which = TriggerFilter(
            app_id=app_id,
            fn_id=request.query("fn_id"),
            name=request.query("name"),
            after=decode.trigger_cursor(request.query("cursor")),
            per_page=page,
        )
        try:
            app = await self._scope.app(request, Action.FNS_READ, app_id)
        except AppsNotFound:
            return page_json([], "", page)
        found = await self._store.get_triggers(which)
        last = f"{found[-1].name}/{found[-1].id}" if found else ""
        return page_json([trigger_json(one, request.base, app.name) for one in found], last, page)

    async def create(self, request: FnRequest) -> dict[str, Any]:
        """Create a trigger."""
        patch = decode.trigger_patch(await request.body())
        if patch.id:
            raise TriggerIdProvided
        if patch.created_at != ZERO:
            raise TriggerCreatedAtProvided
        if patch.updated_at != ZERO:
            raise TriggerUpdatedAtProvided
        trigger = new_trigger(self._next_id(), patch, self._clock.now())
        validate_trigger(trigger)
        app = await self._scope.app(request, Action.FNS_WRITE, trigger.app_id)
        concerns(request.http.scope, app=app.name, name=trigger.id)
        stored = await self._store.insert_trigger(trigger)
        return trigger_json(stored, request.base, app.name)

    async def get(self, request: FnRequest) -> dict[str, Any]:
        """Return a trigger."""
        app, trigger = await self._scope.trigger(request, Action.FNS_READ)
        return trigger_json(trigger, request.base, app.name)

    async def update(self, request: FnRequest) -> dict[str, Any]:
        """Change a trigger."""
        patch = decode.trigger_patch(await request.body())
        if patch.id not in ("", request.id):
            raise TriggerIdMismatch
        app, trigger = await self._scope.trigger(request, Action.FNS_WRITE)
        concerns(request.http.scope, app=app.name, name=trigger.name)
        changed = await self._store.update_trigger(trigger.id, patch, self._clock.now(), validate_trigger)
        await self._changed(app.name)
        return trigger_json(changed, request.base, app.name)

    async def remove(self, request: FnRequest) -> Response:
        """Delete a trigger."""
        app, trigger = await self._scope.trigger(request, Action.FNS_WRITE)
        concerns(request.http.scope, app=app.name, name=trigger.name)
        await self._store.remove_trigger(trigger.id)
        await self._changed(app.name)
        return Response(status_code=204)

    async def by_source(self, request: FnRequest) -> dict[str, Any]:
        """Return the trigger of an app at a source."""
        try:
            app = await self._scope.app(request, Action.FNS_READ, request.id)
        except AppsNotFound:
            raise TriggerNotFound from None
        trigger = await self._store.get_trigger_by_source(app.id, *request.source)
        return trigger_json(trigger, request.base, app.name)
