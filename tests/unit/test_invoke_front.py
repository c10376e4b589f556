"""The call that is built from a request, and what becomes of an async one whose queue refuses it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.agent import Bench, Records, bench
from tests.support.door import OPEN_GATES
from tests.support.http_connection import FakeClient, shared_of

from hearth.access.cache import CachedDefinitions
from hearth.aio.clock import SystemClock
from hearth.contracts.base import Head
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import ApiError, InternalError, InvalidResponse
from hearth.models.ids import encode
from hearth.models.route import Route
from hearth.server.api_v1.functions import Functions
from hearth.server.asgi_calls import AsgiExchange
from hearth.server.invoke import Answer, InvokeFront
from hearth.server.targets import route_fields


class QueueIsSick(ApiError):
    """An API error of class 500."""

    status = 503
    message = "queue is sick"


class Accepting(Records):
    """Keeps the async calls that it is given, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.app = App(name="myapp", config={"APP_VAR": "FOO"})
        self.accepted: list[Call] = []
        self.failure: Exception | None = None

    async def enqueue(self, call: Call) -> None:
        if self.failure is not None:
            raise self.failure
        self.accepted.append(call)


ROUTE = Route(
    app_name="myapp",
    path="/hello",
    image="x",
    type="async",
    format="json",
    timeout=1,
    idle_timeout=20,
    memory=256,
    config={"ROUTE_VAR": "BAR"},
    headers={"X-Function": ["Test"]},
)


@contextlib.asynccontextmanager
async def client_of(access: Accepting, made: Bench) -> AsyncIterator[httpx.AsyncClient]:
    definitions = CachedDefinitions(access, SystemClock())
    functions = Functions(made.agent.pool, access)
    front = InvokeFront(made.agent, functions, OPEN_GATES, definitions, access, SystemClock(), lambda: encode(7))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://h:8080") as client:
        yield client
    await definitions.close()


async def test_a_call_is_what_was_asked() -> None:
    access = Accepting()
    access.routes["/hello"] = ROUTE
    before = dt.datetime.now(dt.UTC)
    headers = [("FN_PATH", "thewrongroute"), ("MYREALHEADER", "FOOLORD"), ("MYREALHEADER", "FOOPEASANT")]
    with capture_logs() as logged:
        async with bench() as made, client_of(access, made) as client:
            answer = await client.post("/r/myapp/hello?a=%20b", content=b"\x80body", headers=headers)
    assert [entry["call_id"] for entry in logged if entry["event"] == "call accepted and queued"] == [encode(7)]
    assert (answer.status_code, answer.content) == (202, b'{"call_id":"%b"}' % encode(7).encode())
    assert answer.headers["x-function"] == "Test"
    [call] = access.accepted
    assert call.config == {
        "FN_FORMAT": "json",
        "FN_APP_NAME": "myapp",
        "FN_PATH": "/hello",
        "FN_MEMORY": "256",
        "FN_TYPE": "async",
        "APP_VAR": "FOO",
        "ROUTE_VAR": "BAR",
    }
    assert call.headers["Fn_path"] == ["thewrongroute"]
    assert call.headers["Myrealheader"] == ["FOOLORD", "FOOPEASANT"]
    assert call.headers["Content-Length"] == ["5"]
    assert "Host" not in call.headers
    assert (call.method, call.url) == ("POST", "http://h:8080/r/myapp/hello?a=%20b")
    assert (call.id, call.app_name, call.path, call.image) == (encode(7), "myapp", "/hello", "x")
    assert (call.type, call.format, call.status) == ("async", "json", "queued")
    assert (call.timeout, call.idle_timeout, call.memory, call.cpu_milli) == (1, 20, 256, 0)
    assert (call.payload, call.priority) == (b"\x80body", 0)
    assert before <= call.created_at <= dt.datetime.now(dt.UTC)


async def test_a_call_is_of_the_route_as_it_is_now_however_its_path_is_spelled() -> None:
    access = Accepting()
    definitions = CachedDefinitions(access, SystemClock())
    async with bench() as made:
        front = InvokeFront(
            made.agent,
            Functions(made.agent.pool, access),
            OPEN_GATES,
            definitions,
            access,
            SystemClock(),
            lambda: encode(7),
        )
        async with shared_of(calls=front.handler) as shared:
            client = FakeClient(shared)
            for image in ("one", "one", "two"):
                if access.routes.get("/hello") is None or access.routes["/hello"].image != image:
                    access.routes["/hello"] = msgspec.structs.replace(ROUTE, image=image, headers={"X-Image": [image]})
                    definitions.forget("myapp", "/hello")
                for path in ("/hello", "//hello/", "/x/../hello"):
                    client.send(f"POST /r/myapp{path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
                    received = await client.settled()
                    assert received.startswith(b"HTTP/1.1 202 ")
                    assert b"x-image: %b\r\n" % image.encode() in received
                    assert access.accepted[-1].image == image
            client.send("PROPFIND /r/myapp/hello HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.settled()).startswith(b"HTTP/1.1 404 "), "whatever is known of the path"
        await definitions.close()


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [(QueueIsSick(), 503, "queue is sick"), (InternalError("secret"), 500, "internal server error")],
)
async def test_a_call_that_cannot_be_kept_is_not_accepted(failure: Exception, status: int, text: str) -> None:
    access = Accepting()
    access.routes["/hello"] = ROUTE
    access.failure = failure
    with capture_logs() as logged:
        async with bench() as made, client_of(access, made) as client:
            answer = await client.post("/r/myapp/hello", content=b"body")
    assert "call accepted and queued" not in [entry["event"] for entry in logged]
    assert (answer.status_code, answer.json()) == (status, {"error": {"message": text}})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["fn_call_id"] == encode(7)
    assert answer.headers["x-function"] == "Test"


async def test_an_error_answer_has_no_header_of_the_function_and_those_of_the_route() -> None:
    sent: list[Any] = []

    async def receive() -> Any: ...

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    answer = Answer(AsgiExchange(scope, receive, send), is_bodiless=False)
    answer.call_id, answer.of_route = encode(7), route_fields({"X-Route": ["r"]})
    answer.head(Head(201, [("X-Function", "f"), ("Content-Type", "text/plain"), ("Content-Length", "5")]))
    await answer.fail(InvalidResponse("json", "cut off"))
    headers = {name.lower(): value for name, value in sent[0]["headers"]}
    assert (sent[0]["status"], headers[b"x-route"], headers[b"fn_call_id"]) == (502, b"r", encode(7).encode())
    assert headers[b"content-type"] == b"application/json; charset=utf-8"
    assert headers[b"content-length"] == b"%d" % len(sent[1]["body"])
    assert b"x-function" not in headers
