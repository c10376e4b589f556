"""Requests from the networks of functions: calls pass, nothing else does."""

from __future__ import annotations

import ipaddress
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from tests.support.door import guarded

from hearth.models.principal import AuthMode
from hearth.server.door import open_only
from hearth.server.peers import RefuseFunctions

SUBNETS = [ipaddress.ip_network("172.18.0.0/16"), ipaddress.ip_network("fd00:1::/64")]
FUNCTIONS = ["172.18.0.2", "172.18.255.254", "::ffff:172.18.0.2", "fd00:1::2"]
OTHERS = ["172.17.0.1", "127.0.0.1", "::ffff:172.19.0.2", "fd00:2::2", "", "no address"]
CALLS = ["/r/a/f", "/r/a/", "/r/%2e%2e/v1/apps"]
REST = ["/", "/version", "/healthz", "/v1/apps", "/v1/runner/async", "/metrics", "/docs", "/r", "//r/a/f", "/R/a/f"]


async def status(app: Any, path: str, client: str, **headers: str) -> int:
    transport = httpx.ASGITransport(app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.get(path, headers=headers)).status_code


def node() -> Any:
    """An application that answers everything, behind the checks of a node that asks for no token."""
    return RefuseFunctions(guarded(PlainTextResponse("served"), AuthMode.OFF, admin="token"), lambda: SUBNETS)


@pytest.mark.parametrize("client", FUNCTIONS)
async def test_a_function_calls_functions_and_nothing_else(client: str) -> None:
    for path in CALLS:
        assert await status(node(), path, client) == 200, path
    for path in REST:
        assert await status(node(), path, client) == 403, path
        token = {"Authorization": "Bearer token", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
        assert await status(node(), path, client, **token) == 403, "whatever it shows"
        assert await status(open_only(node()), path, client) == 403, "nor does a listener for calls answer"


@pytest.mark.parametrize("client", OTHERS)
async def test_others_are_served(client: str) -> None:
    for path in ("/v1/apps", "/healthz", "/r/a/f"):
        assert await status(node(), path, client) == 200


async def test_a_network_that_is_created_later_is_known() -> None:
    subnets: list[Any] = []
    app = RefuseFunctions(PlainTextResponse("served"), lambda: subnets)
    assert await status(app, "/v1/apps", "172.18.0.2") == 200
    subnets += SUBNETS
    assert await status(app, "/v1/apps", "172.18.0.2") == 403
