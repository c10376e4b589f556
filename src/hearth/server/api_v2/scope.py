"""The app that a request of API v2 is about. Paths have ids, so the door cannot know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hearth.authorize.rules import Action, authorize
from hearth.models.app import App
from hearth.models.errors import AppsNotFound
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnNotFound, TriggerNotFound
from hearth.models.trigger import Trigger
from hearth.server.api_v2.request import FnRequest
from hearth.server.door import is_by_result_token
from hearth.stores.fns.base import FnStore

#: Called when an app, or something of it, was changed.
AppChanged = Callable[[str], Awaitable[None]]


class Scope:
    """Finds what a request names, if its sender reaches the app that it belongs to."""

    def __init__(self, store: FnStore) -> None:
        self._store = store

    async def app(self, request: FnRequest, action: Action, app_id: str) -> App:
        """Return an app. Raises ``AppsNotFound``, also if it is out of the sender's reach."""
        app = await self._store.get_app_by_id(app_id)
        if is_by_result_token(request.http.scope):  # the handler checks the token
            return app
        authorize(request.principal, action, app.name)
        return app

    async def fn(self, request: FnRequest, action: Action) -> tuple[App, Fn]:
        """Return the fn in the path with its app. Raises ``FnNotFound``, also if it is out of the sender's reach."""
        fn = await self._store.get_fn(request.id)
        try:
            return await self.app(request, action, fn.app_id), fn
        except AppsNotFound:
            raise FnNotFound from None

    async def trigger(self, request: FnRequest, action: Action) -> tuple[App, Trigger]:
        """Return the trigger in the path with its app. Raises ``TriggerNotFound`` likewise."""
        trigger = await self._store.get_trigger(request.id)
        try:
            return await self.app(request, action, trigger.app_id), trigger
        except AppsNotFound:
            raise TriggerNotFound from None
