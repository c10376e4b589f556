"""The nodes of a fleet: /v1/nodes, and the reports of runners."""

from __future__ import annotations

from typing import Any

import msgspec

from hearth.models.errors import InvalidJSON
from hearth.models.node import NodeReport
from hearth.models.times import format_time
from hearth.server.api_v1.request import ApiRequest
from hearth.server.fleet import Fleet, SeenNode


class Nodes:
    """The operations on nodes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return all nodes that this one knows, itself first."""
        return {"message": "Successfully listed nodes", "nodes": [_json(one) for one in self._fleet.nodes()]}

    async def drain(self, request: ApiRequest) -> dict[str, Any]:
        """Let a node drain until it is started again."""
        return {"message": "The node drains", "node": _json(self._fleet.drain(request.node))}

    async def report(self, request: ApiRequest) -> dict[str, Any]:
        """Keep what a runner reports of itself; the answer says whether it is to drain."""
        try:
            report = msgspec.json.decode(await request.body(), type=NodeReport)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise InvalidJSON from exc
        return {"drain": self._fleet.note(report)}


def _json(node: SeenNode) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(node.report)
    del fields["draining"]
    return {**fields, "state": node.state, "last_seen": format_time(node.last_seen)}
