"""Which pages of which origins may read answers (operations specification 7)."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from hearth.models.errors import StartUpError
from hearth.server.cors import allow_origins, parse_origins


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says which method it saw; also what a function might say by itself."""
    headers = {"Access-Control-Allow-Origin": "https://evil", "Vary": "Accept"} if scope["path"] == "/r/a/own" else {}
    await PlainTextResponse(scope["method"], 201, headers)(scope, receive, send)


async def ask(setting: str, method: str, path: str = "/", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(allow_origins(app, parse_origins(setting)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.request(method, path, headers=headers)


PATHS = ["/", "/v1/apps", "/r/a/f", "/metrics", "/nowhere"]
LISTED = " HTTP://Localhost:3000 , https://ui.example"


def test_without_a_setting_nothing_is_in_the_way() -> None:
    assert allow_origins(app, parse_origins(" ,")) is app


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_that_comes_from_no_page_is_untouched(path: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = await ask(LISTED, method, path)
        assert (answer.status_code, answer.text) == (201, method)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("origin", ["http://other", "null", "http://localhost:3000.evil", "https://localhost:3000"])
async def test_an_origin_that_is_not_listed_is_refused(path: str, method: str, origin: str) -> None:
    answer = await ask(LISTED, method, path, Origin=origin)
    assert (answer.status_code, answer.content) == (403, b"")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://LOCALHOST:3000", "https://ui.example"])
async def test_a_preflight_is_answered_for_every_path(path: str, origin: str) -> None:
    answer = await ask(LISTED, "OPTIONS", path, Origin=origin)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD"
    assert answer.headers["access-control-allow-headers"] == "Origin,Content-Length,Content-Type,Authorization"
    assert answer.headers["access-control-max-age"] == "43200"
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers.get_list("vary") == [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
    ]


async def test_an_answer_to_a_listed_origin_says_so() -> None:
    answer = await ask(LISTED, "POST", "/r/a/f", Origin="https://UI.example")
    assert (answer.status_code, answer.text) == (201, "POST")
    assert answer.headers["access-control-allow-origin"] == "https://UI.example"
    assert answer.headers["access-control-expose-headers"] == "Fn_call_id, Fn-Call-Id"
    assert answer.headers.get_list("vary") == ["Origin"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_what_a_function_says_of_origins_does_not_double_ours() -> None:
    answer = await ask(LISTED, "GET", "/r/a/own", Origin="https://ui.example")
    assert answer.headers.get_list("access-control-allow-origin") == ["https://ui.example"]
    assert answer.headers.get_list("vary") == ["Accept", "Origin"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_a_star_admits_all(method: str) -> None:
    answer = await ask("https://ui.example,*", method, Origin="null")
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("setting", ["localhost:3000", "https://ui.example,ftp://x", "*.example"])
def test_an_origin_without_its_scheme_stops_the_start(setting: str) -> None:
    with pytest.raises(StartUpError, match=r"^FN_API_CORS: bad origin: origins must include http:// or https://"):
        parse_origins(setting)
