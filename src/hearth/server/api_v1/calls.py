"""The calls of an app: /v1/apps/:app/calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from hearth.models.errors import CallLogNotFound, CallNotFound
from hearth.models.log_reader import LogReader
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import call_json
from hearth.server.api_v1.request import ApiRequest
from hearth.server.cancels import Cancels
from hearth.server.logs import json_string, log_response
from hearth.server.results import Results
from hearth.stores.datastore import Datastore
from hearth.stores.records.base import CallFilter

GetLog = Callable[[str, str], Awaitable[LogReader]]


class Calls:
    """The operations on call records and logs.

    Args:
        datastore: Stores the records.
        results: Answers requests for results.
        cancels: Cancels calls.
        get_log: Opens the log of an app's call, if another store than the datastore keeps logs.
    """

    def __init__(self, datastore: Datastore, results: Results, cancels: Cancels, get_log: GetLog | None = None) -> None:
        self._datastore = datastore
        self._cancels = cancels
        self._results = results
        self._logs_apart = get_log is not None
        self._get_log = get_log or datastore.get_log

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return a page of an app's calls, newest first."""
        page = decode.per_page(request.query("per_page"))
        from_time, to_time = decode.bounds(request.query("from_time"), request.query("to_time"))
        found = await self._datastore.get_calls(
            CallFilter(
                app_name=request.app,
                path=request.query("path"),
                status=decode.status(request.query("status")),
                cursor=request.query("cursor"),
                per_page=page,
                from_time=from_time,
                to_time=to_time,
            )
        )
        if not found:
            await self._datastore.get_app(request.app)
        return {
            "message": "Successfully listed calls",
            "next_cursor": found[-1].id if len(found) == page else "",
            "calls": [call_json(call) for call in found],
        }

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """Return a call's record."""
        call = await self._datastore.get_call(request.app, request.call)
        return {"message": "Successfully loaded call", "call": call_json(call)}

    async def result(self, request: ApiRequest) -> Response:
        """Return the result of an async call: what a sync caller would have been answered."""
        return await self._results.answer(
            request, lambda: self._datastore.get_call(request.app, request.call), of_route=True
        )

    async def cancel(self, request: ApiRequest) -> dict[str, Any]:
        """End an accepted call that has not ended."""
        call = await self._cancels.cancel(lambda: self._datastore.get_call(request.app, request.call))
        return {"message": "Successfully cancelled call", "call": call_json(call)}

    async def log(self, request: ApiRequest) -> Response:
        """Return a call's log, in the form that the client accepts."""
        if self._logs_apart:  # such a store keeps logs by app name, also those of a deleted app
            await self._find_ended(request.app, request.call)
        reader = await self._get_log(request.app, request.call)
        begin = b'{"message":"Successfully loaded log","log":{"call_id":%b,"log":' % json_string(request.call)
        return await log_response(reader, request.accepts(), begin, b',"app_name":%b}}' % json_string(request.app))

    async def _find_ended(self, app_name: str, call_id: str) -> None:
        try:
            await self._datastore.get_call(app_name, call_id)
        except CallNotFound:
            raise CallLogNotFound from None
