"""The published description as a contract: what the server answers must be what it says."""

from __future__ import annotations

import httpx
import schemathesis

from hearth.server.api_v2.description import DESCRIPTION as DESCRIPTION_V2
from hearth.server.description import DESCRIPTION

SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION)
SCHEMA_V2 = schemathesis.openapi.from_dict(DESCRIPTION_V2)
_V1 = ("/v1/apps", "/v1/tokens", "/v1/audit")
_V2 = ("/v2/apps", "/v2/fns", "/v2/triggers")


async def check(response: httpx.Response) -> None:
    """Fail if an answer of the API is not described: its status, content type or shape."""
    path = response.request.url.path
    if not path.startswith(_V1 + _V2) or response.is_redirect or response.request.method == "HEAD":
        return
    await response.aread()
    schema = SCHEMA_V2 if path.startswith(_V2) else SCHEMA
    operation = schema.find_operation_by_path(response.request.method, path[len("/v1") :])
    if operation is not None:
        operation.validate_response(response)
