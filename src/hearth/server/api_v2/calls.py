"""The calls of a fn: /v2/fns/:fn_id/calls.

A call is recorded with the names of its app and its fn. A fn never changes its name, and another fn can have it only
after the first one was deleted: so the calls of a fn are those with its name that came after it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.responses import Response

from hearth.authorize.rules import Action
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import CallLogNotFound, CallNotFound
from hearth.models.fn import Fn
from hearth.models.log_reader import LogReader
from hearth.server.api_v1.decode import bounds, per_page
from hearth.server.api_v2.decode import cursor
from hearth.server.api_v2.encode import call_json, page_json
from hearth.server.api_v2.request import FnRequest
from hearth.server.api_v2.scope import Scope
from hearth.server.cancels import Cancels
from hearth.server.logs import json_string, log_response
from hearth.server.results import Results
from hearth.stores.records.base import CallFilter, RecordStore

_MS: Final = dt.timedelta(milliseconds=1)


class Calls:
    """The operations on the records and logs of a fn's calls.

    Args:
        store: The records.
        scope: Finds fns.
        results: Answers requests for results.
        get_log: Opens the log of an app's call.
        cancels: Cancels calls.
    """

    def __init__(
        self,
        store: RecordStore,
        scope: Scope,
        results: Results,
        get_log: Callable[[str, str], Awaitable[LogReader]],
        cancels: Cancels,
    ) -> None:
        self._store = store
        self._cancels = cancels
        self._results = results
        self._scope = scope
        self._get_log = get_log

    async def list(self, request: FnRequest) -> dict[str, Any]:
        """Return a page of a fn's calls, newest first."""
        page = per_page(request.query("per_page"))
        from_time, to_time = bounds(request.query("from_time"), request.query("to_time"))
        app, fn = await self._scope.fn(request, Action.CALLS_READ)
        began = fn.created_at - _MS
        which = CallFilter(
            app_name=app.name,
            path=fn.name,
            cursor=cursor(request.query("cursor")),
            per_page=page,
            from_time=began if from_time is None else max(began, from_time),
            to_time=to_time,
        )
        found = await self._store.get_calls(which)
        return page_json([call_json(call, fn) for call in found], found[-1].id if found else "", page)

    async def get(self, request: FnRequest) -> dict[str, Any]:
        """Return a call's record."""
        app, fn = await self._scope.fn(request, Action.CALLS_READ)
        return call_json(await self._find(app, fn, request.call), fn)

    async def result(self, request: FnRequest) -> Response:
        """Return the result of a detached call: what a caller who waits would have been answered."""
        app, fn = await self._scope.fn(request, Action.CALLS_READ)
        return await self._results.answer(request, lambda: self._find(app, fn, request.call), of_route=False)

    async def cancel(self, request: FnRequest) -> dict[str, Any]:
        """End a detached call that has not ended."""
        app, fn = await self._scope.fn(request, Action.CALLS_WRITE)
        return call_json(await self._cancels.cancel(lambda: self._find(app, fn, request.call)), fn)

    async def log(self, request: FnRequest) -> Response:
        """Return a call's log, in the form that the client accepts."""
        app, fn = await self._scope.fn(request, Action.CALLS_READ)
        try:
            call = await self._find(app, fn, request.call)
        except CallNotFound:
            raise CallLogNotFound from None
        reader = await self._get_log(app.name, call.id)
        return await log_response(reader, request.accepts(), b'{"call_id":%b,"log":' % json_string(call.id), b"}")

    async def _find(self, app: App, fn: Fn, call_id: str) -> Call:
        call = await self._store.get_call(app.name, call_id)
        if call.path != fn.name or call.created_at < fn.created_at:
            raise CallNotFound
        return call
