"""The dead letters of an app: /v1/apps/:app/dead-letters."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from hearth.models.dead_letter import DeadLetter
from hearth.models.errors import DeadLetterNotFound
from hearth.server import errors
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import call_json
from hearth.server.api_v1.request import ApiRequest
from hearth.server.redrives import MOST, PAGE, Redrives, page_behind
from hearth.stores.datastore import Datastore
from hearth.stores.records.base import DeadLetterFilter


class DeadLetters:
    """The operations on dead letters.

    Args:
        datastore: Stores them.
        redrives: Makes new calls of them; ``None`` where calls cannot be accepted.
    """

    def __init__(self, datastore: Datastore, redrives: Redrives | None) -> None:
        self._datastore = datastore
        self._redrives = redrives

    @property
    def can_redrive(self) -> bool:
        """True if new calls can be accepted here."""
        return self._redrives is not None

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return a page of dead letters, the newest failures first."""
        which = self._filter(request, decode.per_page(request.query("per_page")))
        found = await self._datastore.get_dead_letters(which)
        if not found:
            await self._datastore.get_app(request.app)
        return {
            "message": "Successfully listed dead letters",
            "calls": [_json(one) for one in found],
            "next_cursor": found[-1].cursor if len(found) == which.per_page else "",
        }

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """Return a dead letter without its payload."""
        letter, _ = await self._datastore.get_dead_letter(request.app, request.call)
        return {"message": "Successfully loaded dead letter", "call": _json(letter)}

    async def payload(self, request: ApiRequest) -> Response:
        """Return the payload of a dead letter; of one whose message could not be read, that message."""
        _, payload = await self._datastore.get_dead_letter(request.app, request.call)
        headers = {"Content-Type": "application/octet-stream", "Content-Security-Policy": "sandbox"}
        return Response(payload, headers={**headers, "X-Content-Type-Options": "nosniff"})

    async def redrive(self, request: ApiRequest) -> Response:
        """Make a new call of a dead letter."""
        assert self._redrives is not None
        call_id = await self._redrives.redrive(request.app, request.call)
        return _accepted({"call_id": call_id})

    async def redrive_many(self, request: ApiRequest) -> Response:
        """Make new calls of the dead letters of an app, or of some of them, up to a limit."""
        assert self._redrives is not None
        await self._datastore.get_app(request.app)
        done = await self._redrives.redrive_many(self._filter(request, PAGE))
        return _accepted({"redriven": done.calls, "skipped": done.skipped, "next_cursor": done.next_cursor})

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Remove a dead letter."""
        if not await self._datastore.remove_dead_letter(request.app, request.call):
            raise DeadLetterNotFound
        return {"message": "Successfully removed dead letter"}

    async def remove_many(self, request: ApiRequest) -> dict[str, Any]:
        """Remove the dead letters of an app, or some of them, up to a limit."""
        which, removed, cursor = self._filter(request, PAGE), 0, request.query("cursor")
        while removed < MOST:
            letters = await self._datastore.get_dead_letters(page_behind(which, cursor))
            if not letters and not removed:
                await self._datastore.get_app(request.app)
            for letter in letters:
                removed += await self._datastore.remove_dead_letter(request.app, letter.call.id)
                cursor = letter.cursor
            if len(letters) < PAGE:
                cursor = ""
                break
        return {"message": "Successfully removed dead letters", "removed": removed, "next_cursor": cursor}

    def _filter(self, request: ApiRequest, page: int) -> DeadLetterFilter:
        died_from, _ = decode.bounds(request.query("from"), "")
        path = request.query("route")
        return DeadLetterFilter(
            app_name=request.app, per_page=page, path=path, cursor=request.query("cursor"), died_from=died_from
        )


def _json(letter: DeadLetter) -> dict[str, Any]:
    shown = {**call_json(letter.call), "payload_bytes": letter.payload_bytes, "headers": letter.call.headers}
    return {**shown, "unreadable": True} if letter.call.unreadable else shown


def _accepted(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), 202, headers={"Content-Type": errors.JSON_TYPE})
