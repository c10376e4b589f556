"""What a type of node cannot do is an error for that request, never for the process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.extended import extended_node

PATHS = [
    "/",
    "/version",
    "/stats",
    "/metrics",
    "/healthz",
    "/readyz",
    "/docs",
    "/v1/openapi.json",
    "/v1/apps",
    "/v1/apps/a",
    "/v1/apps/a/routes",
    "/v1/apps/a/routes/f",
    "/v1/apps/a/calls",
    "/v1/apps/a/calls/x",
    "/v1/apps/a/calls/x/log",
    "/v1/none",
    "/r/a/f",
    "/r/a",
    "/r/",
    "/none",
]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


@pytest.mark.parametrize("node_type", ["full", "api"])
async def test_every_request_is_answered_on_every_node(tmp_path: Path, node_type: str) -> None:
    async with extended_node(tmp_path, node_type=node_type) as on:
        for path in PATHS:
            for method in METHODS:
                answer = await on.http.request(method, path, content=b"{}")
                assert answer.status_code < 500, (method, path, answer.text)
                if answer.status_code >= 400 and method != "HEAD":
                    assert answer.json()["error"]["message"], (method, path)
        assert (await on.http.get("/readyz")).json()["ready"] is True
