"""The calls of an app: /v1/apps/:app/calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from hearth.datastore.base import CallFilter, Datastore
from hearth.models.errors import NotAcceptable
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import call_json
from hearth.server.api_v1.request import ApiRequest

GetLog = Callable[[str, str], Awaitable[bytes]]


class Calls:
    """The operations on call records and logs.

    Args:
        datastore: Where the records are.
        get_log: Finds the log of an app's call.
    """

    def __init__(self, datastore: Datastore, get_log: GetLog) -> None:
        self._datastore = datastore
        self._get_log = get_log

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """A page of an app's calls, newest first."""
        page = decode.per_page(request.query("per_page"))
        from_time, to_time = decode.bounds(request.query("from_time"), request.query("to_time"))
        found = await self._datastore.get_calls(
            CallFilter(
                app_name=request.app,
                path=request.query("path"),
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
        """One call's record."""
        call = await self._datastore.get_call(request.app, request.call)
        return {"message": "Successfully loaded call", "call": call_json(call)}

    async def log(self, request: ApiRequest) -> dict[str, Any] | Response:
        """A call's log, in the form that the client accepts."""
        text = await self._get_log(request.app, request.call)
        if _accepted(request.accepts()) == "text":
            return Response(text, headers={"Content-Type": "text/plain; charset=utf-8"})
        log = {"call_id": request.call, "log": text.decode("utf-8", "replace"), "app_name": request.app}
        return {"message": "Successfully loaded log", "log": log}


def _accepted(lines: list[str]) -> str:
    for line in lines or ["*/*"]:
        for wanted, form in (("application/json", "json"), ("text/plain", "text"), ("*/*", "json")):
            if wanted in line:
                return form
    raise NotAcceptable
