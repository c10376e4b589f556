"""What middleware sees and may do (operations specification 8.4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.support.extended import Added, extended_node
from tests.support.http_connection import FakeClient, shared_of

from hearth.models.errors import ApiError, StartUpError
from hearth.server.extensions import Server
from hearth.server.middleware import IncomingRequest, Middleware, Next, context, middleware


class Forbidden(ApiError):
    status = 403
    message = "not you"


def writing(text: str) -> Middleware:
    """A middleware that writes before whatever comes next does."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            async def first(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [pair for pair in message["headers"] if pair[0] != b"content-length"]
                    await send(message)
                    message = {"type": "http.response.body", "body": text.encode(), "more_body": True}
                await send(message)

            await app(scope, receive, first)

        return handle

    return wrap


async def last(request: Request) -> Response:
    return PlainTextResponse("last")


async def test_the_first_middleware_is_outermost(tmp_path: Path) -> None:
    def setup(server: Server) -> None:
        for text in ("first,", "second,", "third,", "fourth,"):
            server.add_api_middleware(writing(text))
        server.add_endpoint("GET", "/ordered", last)

    async with extended_node(tmp_path, [Added(setup)]) as on:
        assert (await on.http.get("/v1/ordered")).text == "first,second,third,fourth,last"
        assert (await on.http.get("/version")).text == '{"version":"0.3.753"}'


async def test_root_middleware_may_call_a_function_instead(tmp_path: Path) -> None:
    after: list[str] = []

    @middleware
    async def funcit(request: IncomingRequest, call_next: Next) -> Response | None:
        if "funcit" in request.headers:
            await call_next.call_function(request, "myapp2", "/app2func", body=b'{"echo":"the function\'s"}')
        await call_next(request)
        return None

    @middleware
    async def later(request: IncomingRequest, call_next: Next) -> Response | None:
        after.append(request.url.path)
        await call_next(request)
        return None

    def setup(server: Server) -> None:
        server.add_root_middleware(funcit)
        server.add_root_middleware(later)

    async with extended_node(tmp_path, [Added(setup)]) as on:
        await on.route("myapp2", "app2func")
        after.clear()
        answer = await on.http.get("/v1/apps", headers={"funcit": "1"})
        assert (answer.status_code, answer.text) == (200, "the function's")
        assert after == []  # what comes next is skipped
        assert (await on.record(answer, "myapp2"))["path"] == "/app2func"
        assert "apps" in (await on.http.get("/v1/apps")).json()


async def test_a_function_needs_an_app(tmp_path: Path) -> None:
    def wrap(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await context(scope).call_function(scope, receive, send)

        return handle

    async with extended_node(tmp_path, [Added(lambda server: server.add_root_middleware(wrap))]) as on:
        answer = await on.http.get("/version")
        assert (answer.status_code, answer.json()) == (400, {"error": {"message": "Missing app name"}})


async def test_what_middleware_raises_is_answered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    @middleware
    async def failing(request: IncomingRequest, call_next: Next) -> Response | None:
        if request.url.path == "/forbidden":
            raise Forbidden
        if request.url.path == "/broken":
            raise RuntimeError("a secret of the middleware")
        await call_next(request)
        return None

    async with extended_node(tmp_path, [Added(lambda server: server.add_root_middleware(failing))]) as on:
        assert (await on.http.get("/version")).status_code == 200
        refused = await on.http.get("/forbidden")
        assert (refused.status_code, refused.json()) == (403, {"error": {"message": "not you"}})
        broken = await on.http.get("/broken")
        assert (broken.status_code, broken.json()) == (500, {"error": {"message": "internal server error"}})
        assert "A panic occurred during middleware." in "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["/v1/apps", "/v1/apps/a/routes/f", "/v1/none", "/v1/runner/async", "/v1/mine", "/v1"])
async def test_no_path_of_the_api_passes_its_middleware_by(tmp_path: Path, path: str) -> None:
    @middleware
    async def closed(request: IncomingRequest, call_next: Next) -> Response | None:
        raise Forbidden

    def setup(server: Server) -> None:
        server.add_api_middleware(closed)
        server.add_endpoint("GET", "/mine", last)

    async with extended_node(tmp_path, [Added(setup)]) as on:
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert (await on.http.request(method, path)).status_code == 403
        assert (await on.http.get("/version")).status_code == 200
        assert (await on.http.get("/r/a/f")).status_code == 404
        for spelled in ("/%76%31/apps", "/v1/./apps", "/v1%2Fapps"):
            assert (await on.http.get(spelled)).status_code == 403
        for other in ("//v1/apps", "/V1/apps", "/x/../v1/apps"):
            assert (await on.http.get("http://node" + other)).status_code in (403, 404)


async def test_root_middleware_sees_everything(tmp_path: Path) -> None:
    seen: list[str] = []

    @middleware
    async def watching(request: IncomingRequest, call_next: Next) -> Response | None:
        seen.append(request.url.path)
        await call_next(request)
        return None

    async with extended_node(tmp_path, [Added(lambda server: server.add_root_middleware(watching))]) as on:
        await on.route()
        paths = ["/", "/version", "/stats", "/healthz", "/none", "/v1/apps", "/r/a/f", "/r/none/none"]
        seen.clear()
        for path in paths:
            await on.http.get(path)
        assert seen == paths


async def test_api_middleware_is_told_the_app(tmp_path: Path) -> None:
    named: list[str] = []

    @middleware
    async def naming(request: IncomingRequest, call_next: Next) -> Response | None:
        named.append(context(request).app_name)
        await call_next(request)
        return None

    async with extended_node(tmp_path, [Added(lambda server: server.add_api_middleware(naming))]) as on:
        for path in ("/v1/apps", "/v1/apps/myapp", "/v1/apps/myapp/routes/x", "/v1/none/myapp"):
            await on.http.get(path)
        assert named == ["", "myapp", "myapp", ""]


async def test_what_middleware_replaces_is_what_comes_next_sees(tmp_path: Path) -> None:
    @middleware
    async def other_body(request: IncomingRequest, call_next: Next) -> Response | None:
        orders = json.loads(await request.body() or "{}")
        if "shout" in orders:
            await call_next(request, body=json.dumps({"echo": orders["shout"].upper()}).encode())
        else:
            await call_next(request)  # its body was read, and can be read again
        return None

    def other_path(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"].replace("/alias", "/r/a/f")
            await app({**scope, "path": path}, receive, send)

        return handle

    def setup(server: Server) -> None:
        server.add_root_middleware(other_body)
        server.add_root_middleware(other_path)

    async with extended_node(tmp_path, [Added(setup)]) as on:
        path = await on.route()
        assert (await on.http.post(path, json={"shout": "quiet"})).text == "QUIET"
        assert (await on.http.post(path, json={"echo": "as it was"})).text == "as it was"
        assert (await on.http.post("/alias", json={"shout": "aliased"})).text == "ALIASED"
        made = await on.http.post("/v1/apps", json={"app": {"name": "read-twice"}})
        assert made.status_code == 200


async def test_a_middleware_that_reads_meets_the_limit_of_bodies(tmp_path: Path) -> None:
    @middleware
    async def reading(request: IncomingRequest, call_next: Next) -> Response | None:
        await request.body()
        await call_next(request)
        return None

    setup = Added(lambda server: server.add_root_middleware(reading))
    async with extended_node(tmp_path, [setup], max_request_size=100) as on:
        assert (await on.http.post("/v1/apps", content=b"x" * 101)).status_code == 413


async def test_nothing_is_added_to_a_node_that_serves(tmp_path: Path) -> None:
    kept: list[Server] = []
    async with extended_node(tmp_path, [Added(kept.append)]):
        with pytest.raises(StartUpError, match="that serves"):
            kept[0].add_root_middleware(writing(""))
        with pytest.raises(StartUpError, match="that serves"):
            kept[0].add_endpoint("GET", "/late", last)


@pytest.mark.parametrize(
    ("add", "cors", "is_direct"),
    [
        (lambda server: None, "", True),
        (lambda server: server.add_api_middleware(writing("a")), "", True),
        (lambda server: server.add_root_middleware(writing("r")), "", False),
        (lambda server: None, "https://ui.example", False),
    ],
    ids=["nothing", "API middleware", "root middleware", "origins"],
)
async def test_calls_pass_asgi_only_where_something_wants_to_see_them(
    tmp_path: Path, add: Callable[[Server], None], cors: str, is_direct: bool
) -> None:
    async with extended_node(tmp_path, [Added(add)], api_cors=cors) as node:
        assert (node.node.calls is not None) is is_direct


@pytest.mark.parametrize("is_surrounded", [False, True])
async def test_a_served_call_passes_the_root_middleware(tmp_path: Path, is_surrounded: bool) -> None:
    extensions = [Added(lambda server: server.add_root_middleware(writing("seen ")))] if is_surrounded else []
    async with extended_node(tmp_path, extensions) as node, shared_of(node.node.app, node.node.calls) as shared:
        path = await node.route()
        client = FakeClient(shared)
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(30):
            while b"HTTP/1.1 200 OK" not in client.received or not client.received.endswith(b"\r\n\r\n"):
                await asyncio.sleep(0)
        assert (b"seen " in client.received) is is_surrounded
