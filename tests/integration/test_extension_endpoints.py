"""How extensions come to a node, and the endpoints they add (operations specification 8.1, 8.5)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.support.extended import Added, extended_node

from hearth.agent.listeners import CallListener
from hearth.models.app import App
from hearth.models.errors import StartUpError
from hearth.models.route import Route
from hearth.server.extensions import Server, register
from hearth.server.listeners import AppListener
from hearth.stores.definitions.base import AppFilter


async def plain(request: Request) -> dict[str, Any]:
    return {"plain": request.query_params.get("q", "")}


async def of_app(request: Request, app: App) -> dict[str, Any]:
    return {"app": app.name}


async def of_route(request: Request, app: App, route: Route) -> Response:
    return PlainTextResponse(f"{request.method} {app.name} {route.path}")


async def deeper(request: Request, app: App, route: Route) -> Response:
    return PlainTextResponse(f"deeper {route.path}")


def with_endpoints(server: Server) -> None:
    server.add_endpoint("GET", "/reports/daily", plain)
    server.add_app_endpoint("GET", "/usage", of_app)
    for method in ("GET", "PUT", "PATCH", "DELETE", "POST"):
        server.add_route_endpoint(method, "/stats", of_route)
    server.add_route_endpoint("GET", "/by/day/stats", deeper)


async def test_endpoints_are_found(tmp_path: Path) -> None:
    async with extended_node(tmp_path, [Added(with_endpoints)]) as on:
        await on.route("a", "x")
        await on.route("a", "x/y")
        await on.route("a", "")
        assert (await on.http.get("/v1/reports/daily?q=1")).json() == {"plain": "1"}
        assert (await on.http.get("/v1/apps/a/usage")).json() == {"app": "a"}
        for method in ("GET", "PUT", "PATCH", "DELETE", "POST"):
            assert (await on.http.request(method, "/v1/apps/a/routes/x/stats")).text == f"{method} a /x"
        assert (await on.http.get("/v1/apps/a/routes/x/y/stats")).text == "GET a /x/y"
        assert (await on.http.get("/v1/apps/a/routes//stats")).text == "GET a /"
        assert (await on.http.get("/v1/apps/a/routes/x/by/day/stats")).text == "deeper /x"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/apps/none/usage", "App not found"),
        ("/v1/apps/none/routes/x/stats", "App not found"),
        ("/v1/apps/a/routes/none/stats", "Route not found"),
        ("/v1/reports", "Path not found: /v1/reports"),
        ("/v1/reports/daily/more", "Path not found: /v1/reports/daily/more"),
    ],
)
async def test_what_is_not_there_is_told(tmp_path: Path, path: str, message: str) -> None:
    async with extended_node(tmp_path, [Added(with_endpoints)]) as on:
        await on.route("a", "x")
        answer = await on.http.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": {"message": message}})


async def test_what_the_api_has_itself_stays(tmp_path: Path) -> None:
    async with extended_node(tmp_path, [Added(with_endpoints)]) as on:
        await on.route("a", "stats")  # a path of one segment is no route with an ending
        assert (await on.http.get("/v1/apps/a/routes/stats")).json()["route"]["path"] == "/stats"
        assert (await on.http.post("/v1/apps/a/usage")).status_code == 404
        slash = await on.http.get("/v1/apps/a/usage/")
        assert (slash.status_code, slash.headers["location"]) == (301, "/v1/apps/a/usage")


@pytest.mark.parametrize(
    "add",
    [
        lambda server: server.add_endpoint("GET", "/apps", plain),
        lambda server: server.add_endpoint("GET", "/runner/async", plain),
        lambda server: server.add_endpoint("GET", "daily", plain),
        lambda server: server.add_endpoint("GET", "/", plain),
        lambda server: server.add_app_endpoint("GET", "/routes", of_app),
        lambda server: server.add_app_endpoint("GET", "/usage", of_app),
    ],
)
async def test_an_endpoint_that_is_taken_stops_the_start(tmp_path: Path, add: Any) -> None:
    def setup(server: Server) -> None:
        server.add_app_endpoint("GET", "/usage", of_app)
        add(server)

    with pytest.raises(StartUpError, match=r"^Failed to add extension test/added: endpoint "):
        async with extended_node(tmp_path, [Added(setup)]):
            pass


# -- how they come ------------------------------------------------------------------------------------------------


async def test_extensions_are_added_by_name_in_order(tmp_path: Path) -> None:
    order: list[str] = []
    for name in ("test/one", "test/two", "test/three"):
        register(Added(lambda server, name=name: order.append(name), name))  # type: ignore[misc]
    assert order == []
    async with extended_node(tmp_path, ["test/two"], extensions="test/three, test/one"):
        assert order == ["test/two", "test/three", "test/one"]


async def test_an_unknown_extension_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartUpError, match=r"^FN_EXTENSIONS: Extension test/nobody not registered; "):
        async with extended_node(tmp_path, extensions="test/nobody"):
            pass


async def test_an_extension_that_fails_stops_the_start(tmp_path: Path) -> None:
    async def setup(server: Server) -> None:
        raise OSError("no such key file")

    with pytest.raises(StartUpError, match=r"^Failed to add extension test/added: no such key file$"):
        async with extended_node(tmp_path, [Added(setup)]):
            pass


async def test_what_an_extension_enters_is_left_with_the_node(tmp_path: Path) -> None:
    events: list[str] = []

    class Telling(CallListener):
        async def after_call(self, call: Any) -> None:
            events.append("call")

    @contextlib.asynccontextmanager
    async def client() -> Any:
        events.append("entered")
        yield
        events.append("left")

    async def setup(server: Server) -> None:
        await server.enter(client())
        server.add_call_listener(Telling())
        assert await server.datastore.get_apps(AppFilter()) == []

    async with extended_node(tmp_path, [Added(setup)]) as on:
        await on.http.post(await on.route(), json={})
    assert events == ["entered", "call", "left"]


def test_a_runner_takes_what_is_of_use_and_refuses_the_rest() -> None:
    server = Server("runner", None, contextlib.AsyncExitStack())
    server.add_call_listener(CallListener())
    assert len(server.call_listeners) == 1
    for add in (
        lambda: server.add_app_listener(AppListener()),
        lambda: server.add_endpoint("GET", "/x", plain),
        lambda: server.add_app_endpoint("GET", "/x", of_app),
        lambda: server.add_route_endpoint("GET", "/x", of_route),
        lambda: server.datastore,
    ):
        with pytest.raises(StartUpError, match="a runner node serves no /v1"):
            add()


async def test_a_call_listener_of_an_api_node_is_never_told(tmp_path: Path) -> None:
    listeners: list[Any] = []

    def setup(server: Server) -> None:
        server.add_call_listener(CallListener())
        listeners.append(server.call_listeners)

    async with extended_node(tmp_path, [Added(setup)], node_type="api") as on:
        assert (await on.http.get("/v1/apps")).status_code == 200
        assert (await on.http.post("/r/a/f")).status_code == 400
    assert listeners == [[]]
