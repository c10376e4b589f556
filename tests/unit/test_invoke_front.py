"""The call that is built from a request, and what becomes of an async one whose queue refuses it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.support.agent import Bench, Records, bench

from hearth.access.cached import Definitions
from hearth.clock import SystemClock
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import ApiError, InternalError
from hearth.models.ids import encode
from hearth.models.route import Route
from hearth.server.invoke import InvokeFront


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
    definitions = Definitions(access, SystemClock())
    front = InvokeFront(made.agent, definitions, access, SystemClock(), lambda: encode(7))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://h:8080") as client:
        yield client
    await definitions.close()


async def test_a_call_is_what_was_asked() -> None:
    access = Accepting()
    access.routes["/hello"] = ROUTE
    before = dt.datetime.now(dt.UTC)
    headers = [("FN_PATH", "thewrongroute"), ("MYREALHEADER", "FOOLORD"), ("MYREALHEADER", "FOOPEASANT")]
    async with bench() as made, client_of(access, made) as client:
        answer = await client.post("/r/myapp/hello?a=%20b", content=b"\x80body", headers=headers)
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


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [(QueueIsSick(), 503, "queue is sick"), (InternalError("secret"), 500, "internal server error")],
)
async def test_a_call_that_cannot_be_kept_is_not_accepted(failure: Exception, status: int, text: str) -> None:
    access = Accepting()
    access.routes["/hello"] = ROUTE
    access.failure = failure
    async with bench() as made, client_of(access, made) as client:
        answer = await client.post("/r/myapp/hello", content=b"body")
    assert (answer.status_code, answer.json()) == (status, {"error": {"message": text}})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["fn_call_id"] == encode(7)
    assert answer.headers["x-function"] == "Test"
