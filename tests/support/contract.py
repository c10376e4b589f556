"""The published description as a contract: what the server answers must be what it says."""

from __future__ import annotations

import httpx
import schemathesis

from hearth.server.description import DESCRIPTION

SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION)


async def check(response: httpx.Response) -> None:
    """Fail if an answer of the API is not described: its status, content type or shape."""
    path = response.request.url.path
    if not path.startswith("/v1/apps") or response.is_redirect or response.request.method == "HEAD":
        return
    await response.aread()
    operation = SCHEMA.find_operation_by_path(response.request.method, path.removeprefix("/v1"))
    if operation is not None:
        operation.validate_response(response)
