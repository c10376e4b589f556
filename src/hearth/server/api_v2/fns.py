"""The fns of API v2: /v2/fns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action, is_allowed
from hearth.models.app import App
from hearth.models.errors import AppsNotFound, ImageNotPinned
from hearth.models.fn import Fn, new_fn, validate_fn
from hearth.models.fn_errors import FnIdMismatch, FnIdProvided, FnMissingAppId
from hearth.models.image import is_pinned
from hearth.server.api_v1.decode import per_page
from hearth.server.api_v1.versions import Versions
from hearth.server.api_v2 import decode
from hearth.server.api_v2.encode import fn_json, page_json
from hearth.server.api_v2.request import FnRequest
from hearth.server.api_v2.scope import AppChanged, Scope
from hearth.server.audit import concerns
from hearth.server.door import principal_of
from hearth.stores.fns.base import FnFilter, FnStore


class Fns:
    """The operations on fns.

    Args:
        store: The fns.
        scope: Finds them, and their apps.
        next_id: Returns a new id.
        changed: Called with the name of the app whose fn was changed or removed.
        max_memory_mib: The most memory that a fn may ask for.
        versions: Finds out what images mean, and notes each deploy.
    """

    def __init__(
        self,
        store: FnStore,
        scope: Scope,
        clock: Clock,
        next_id: Callable[[], str],
        changed: AppChanged,
        max_memory_mib: int,
        versions: Versions,
    ) -> None:
        self._store = store
        self._scope = scope
        self._clock = clock
        self._next_id = next_id
        self._changed = changed
        self._max_memory_mib = max_memory_mib
        self._versions = versions

    async def list(self, request: FnRequest) -> dict[str, Any]:
        """Return a page of an app's fns; none of an app that the sender does not reach."""
        if not (app_id := request.query("app_id")):
            raise FnMissingAppId
        page = per_page(request.query("per_page"))
        which = FnFilter(
            app_id=app_id,
            name=request.query("name"),
            cursor=decode.cursor(request.query("cursor")),
            per_page=page,
        )
        try:
            app = await self._scope.app(request, Action.FNS_READ, app_id)
        except AppsNotFound:
            return page_json([], "", page)
        found = await self._store.get_fns(which)
        return page_json([_shown(request, app, fn) for fn in found], found[-1].name if found else "", page)

    async def create(self, request: FnRequest) -> dict[str, Any]:
        """Create a fn."""
        patch = decode.fn_patch(await request.body())
        if patch.id:
            raise FnIdProvided
        fn = new_fn(self._next_id(), patch, self._clock.now())
        self._check(fn)
        _check_pinned(request, patch.image)
        app = await self._scope.app(request, Action.FNS_WRITE, fn.app_id)
        concerns(request.http.scope, app=app.name, name=fn.id)
        digest = await self._versions.digest(fn.image)
        made = await self._store.insert_fn(msgspec.structs.replace(fn, digest=digest))
        await self._versions.note(principal_of(request.http.scope), app.name, made.id, made)
        return _shown(request, app, made)

    async def get(self, request: FnRequest) -> dict[str, Any]:
        """Return a fn."""
        return _shown(request, *await self._scope.fn(request, Action.FNS_READ))

    async def update(self, request: FnRequest) -> dict[str, Any]:
        """Change a fn."""
        patch = decode.fn_patch(await request.body())
        if patch.id not in ("", request.id):
            raise FnIdMismatch
        app, fn = await self._scope.fn(request, Action.FNS_WRITE)
        concerns(request.http.scope, app=app.name, name=fn.name)
        _check_pinned(request, patch.image)
        patch.digest = await self._versions.digest(patch.image)
        changed = await self._store.update_fn(fn.id, patch, self._clock.now(), self._check)
        if patch.image:
            await self._versions.note(principal_of(request.http.scope), app.name, changed.id, changed)
        await self._changed(app.name)
        return _shown(request, app, changed)

    async def remove(self, request: FnRequest) -> Response:
        """Delete a fn with its triggers; its calls stay."""
        app, fn = await self._scope.fn(request, Action.FNS_WRITE)
        concerns(request.http.scope, app=app.name, name=fn.name)
        await self._store.remove_fn(fn.id)
        await self._changed(app.name)
        return Response(status_code=204)

    def _check(self, fn: Fn) -> None:
        validate_fn(fn, self._max_memory_mib)


def _check_pinned(request: FnRequest, image: str) -> None:
    """Refuse a tag of a principal of some apps: it belongs to nobody, and could be the code of others."""
    if image and request.principal.apps and not is_pinned(image):
        raise ImageNotPinned


def _shown(request: FnRequest, app: App, fn: Fn) -> dict[str, Any]:
    shows_config = is_allowed(request.principal, Action.CONFIG_READ, app.name)
    return fn_json(fn, request.base, shows_config=shows_config)
