"""What a type of node cannot do is an error for that request, never for the process."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from tests.support.extended import Added, extended_node

from hearth.authorize import rules
from hearth.models.errors import StartUpError, Unauthenticated
from hearth.models.principal import Role

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
RUNNER = {"runner_api_url": "http://127.0.0.1:1", "runner_token": "s3cret"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


@pytest.mark.parametrize("node_type", ["full", "api", "runner"])
async def test_every_request_is_answered_on_every_node(tmp_path: Path, node_type: str) -> None:
    above = RUNNER if node_type == "runner" else {}
    away = ("/r/a", "/readyz") if node_type == "runner" else ()  # what needs that node
    paths = [path for path in PATHS if not path.startswith(away)]
    async with extended_node(tmp_path, node_type=node_type, **above) as on:
        for path in paths:
            for method in METHODS:
                answer = await on.http.request(method, path, content=b"{}")
                assert answer.status_code < 500, (method, path, answer.text)
                if answer.status_code >= 400 and method != "HEAD":
                    assert answer.json()["error"]["message"], (method, path)
        ready = (await on.http.get("/readyz")).json()
        assert ready["ready"] is (node_type != "runner"), ready
        assert ready.get("api", "") == ("API node not available" if node_type == "runner" else "")


async def test_a_runner_takes_no_endpoint(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        return Response()

    added = Added(lambda server: server.add_endpoint("GET", "/x", handler))
    with pytest.raises(StartUpError, match=r"^Failed to add extension test/added: a runner node serves no /v1"):
        async with extended_node(tmp_path, [added], node_type="runner", **RUNNER):
            pass


@pytest.mark.parametrize("node_type", ["full", "runner"])
async def test_a_node_whose_calls_pass_no_door_starts_only_if_everybody_may_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node_type: str
) -> None:
    grants = {**rules.GRANTS, Role.ANONYMOUS: rules.OPEN - {rules.Action.CALL}}
    monkeypatch.setattr(rules, "GRANTS", grants)
    with pytest.raises(Unauthenticated):
        async with extended_node(tmp_path, node_type=node_type, **(RUNNER if node_type == "runner" else {})):
            pass
