"""The audit log of the API: /v1/audit."""

from __future__ import annotations

from typing import Any

from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import event_json
from hearth.server.api_v1.request import ApiRequest
from hearth.stores.audit.base import AuditFilter, AuditStore


class Audit:
    """The operations on the audit log."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return a page of events, newest first; to administrators of some apps, those of their apps."""
        page = decode.per_page(request.query("per_page"))
        found = await self._store.get_events(
            AuditFilter(
                cursor=request.query("cursor"),
                per_page=page,
                app=request.query("app"),
                principal=request.query("principal"),
                apps=sorted(request.principal.apps) or None,
            )
        )
        return {
            "message": "Successfully listed audit events",
            "next_cursor": found[-1].id if len(found) == page else "",
            "events": [event_json(event) for event in found],
        }
