"""HAProxy as it is shipped, before nodes: what it takes for a call, and what nodes read, agree for every spelling."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.door import guarded
from tests.support.processes import spawn

from hearth.aio.clock import SystemClock
from hearth.models.principal import AuthMode
from hearth.nodes.local_fleet import haproxy_config
from hearth.server.asgi import Front
from hearth.server.http.server import HttpServer
from hearth.settings import load

ADMIN, RUNNER = "token-of-the-admin-1234", "token-of-the-runners-1234"
SHIPPED: Final = Path(__file__).parent.parent.parent / "deploy" / "haproxy" / "haproxy.cfg"
#: What a door that asks for tokens opens to everybody.
OPEN: Final = {"/", "/version", "/healthz", "/readyz"}
PATHS: Final = [
    "/",
    "/version",
    "/v1/apps",
    "/r/a/f",
    "/r/",
    "/r",
    "/R/a/f",
    "/invoke/x",
    "/t/a/s",
    "/%72/a/f",
    "/r%2fa/f",
    "/%2fr/a/f",
    "/%2Fv1/apps",
    "/r%252fa",
    "//r/a/f",
    "/./r/a/f",
    "/%2e/r/a/f",
    "/r/../v1/apps",
    "/r/..%2f..%2fv1%2fapps",
    "/r/%2e%2e/%2e%2e/v1/apps",
    "/v1/../r/a/f",
    "/v1/apps/../../r/a/f",
    "/r;x/a/f",
    "/r/a/f;x=y",
    "/r/a%00f",
    "/r\\a\\f",
    "/r/a/100%",
    "/r/%zz",
    "/%72/%zz",
    "/%76%31/apps%",
    "/invoke%2Fx",
    "/%69nvoke/x",
    "/%74/a/s",
    "/T/a/s",
    "/v1/apps?x=/r/a",
    "/r?x=/r/",
    "/v1/runner/async",
    "/V1/Runner/async",
    "/v1/%72unner/async",
    "/v1%2frunner%2fasync",
    "/v1/runner/%zz",
    "/v1/%2572unner/async",
    "//v1/runner/async",
    "/v1//runner/async",
    "/v1/./runner/async",
    "/r/../v1/runner/async",
    "/metrics",
    "/%6detrics",
    "http://hearth/r/a/f",
    "http://hearth/%72/a/f",
    "http://hearth/v1/apps",
    "HTTP://hearth/v1/runner/async",
    "http://hearth//r/a/f",
    "http://hearth",
    "http:/r/a/f",
    "hearth:80",
    "*",
]
#: Requests that a server might take for two, or for one of another length. Each hides one for ``/r/hidden``.
HIDDEN: Final = "GET /r/hidden HTTP/1.1\r\nHost: hearth\r\n\r\n"
FRAMINGS: Final = {
    "both lengths": f"Content-Length: {{}}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a coding that is unknown": f"Content-Length: {{}}\r\nTransfer-Encoding: xchunked\r\n\r\n{HIDDEN}",
    "a coding before a tab": f"Content-Length: {{}}\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a space before the colon": f"Content-Length: {{}}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a folded coding": f"Content-Length: {{}}\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "two codings": f"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a coding twice": f"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "two lengths": f"Content-Length: 0\r\nContent-Length: {{}}\r\n\r\n{HIDDEN}",
    "a list of lengths": f"Content-Length: 0, {{}}\r\n\r\n{HIDDEN}",
    "a length with a sign": f"Content-Length: +{{}}\r\n\r\n{HIDDEN}",
    "a length that is too long": f"Content-Length: 99999999999999999999\r\n\r\n{HIDDEN}",
    "a field that ends early": f"Content-Length: {{}}\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a bare return": f"Content-Length: {{}}\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a size with a sign": f"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{HIDDEN}",
    "a size of 2^64": f"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{HIDDEN}",
    "a chunk without its end": f"Transfer-Encoding: chunked\r\n\r\n1\r\nx0\r\n\r\n{HIDDEN}",
    "a connection that drops the coding": f"Connection: Transfer-Encoding\r\nContent-Length: {{}}\r\n\r\n{HIDDEN}",
}


class Seen:
    """A node's application that answers how it read a request, and what came through its door."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paths: list[str] = []

    def application(self) -> ASGIApp:
        """A node as far as paths and tokens go."""
        behind = guarded(self._answering("api"), AuthMode.REQUIRED, admin=ADMIN, runner=RUNNER)
        return Front(self._answering("call"), behind)

    def _answering(self, read_as: str) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            body = await Request(scope, receive).body()
            if scope["path"] != "/readyz":
                self.paths.append(scope["path"])
            told = {"node": self.name, "read": read_as, "path": scope["path"], "body": body.decode("latin-1")}
            await JSONResponse(told, headers={"X-Node": self.name})(scope, receive, send)

        return answer


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    head: str
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        """How a node read the request; nothing if HAProxy or a door has answered."""
        found: dict[str, Any] = json.loads(self.body) if b'"read"' in self.body else {}
        return found


class Balanced:
    """HAProxy before two runners and an API node."""

    def __init__(self, port: int, nodes: list[Seen]) -> None:
        self.port = port
        self.nodes = nodes

    async def ask(self, head: str, token: str = "") -> Answer:
        """Send bytes that are to be one request; the first answer."""
        shown = f"Authorization: Bearer {token}\r\n" if token else ""
        line, _, rest = head.partition("\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"{line}\r\n{shown}{rest}".encode("latin-1"))
            writer.write_eof()
            data = b""
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(60):
                    while part := await reader.read(1 << 16):
                        data += part
        finally:
            writer.close()
        begin, _, body = data.partition(b"\r\n\r\n")
        status = int(begin.split()[1]) if begin else 0
        return Answer(status, begin.decode("latin-1"), body)


@pytest.fixture(params=["shipped", "local fleet"])
async def balanced(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Balanced]:
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        message = "no haproxy; tools/engines.sh installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    nodes = [Seen("api"), Seen("runner"), Seen("runner")]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in (*nodes, "front")]
    api, first, second, front = (one.getsockname()[1] for one in sockets)
    sockets.pop().close()
    if request.param == "shipped":
        text = SHIPPED.read_text()
        text = text.replace("bind :8080", f"bind 127.0.0.1:{front}").replace("maxconn 8000", "maxconn 100")
        for name, port in (("api", api), ("runner-1", first), ("runner-2", second)):
            assert f"server {name} {name}:8080" in text
            text = text.replace(f"{name}:8080", f"127.0.0.1:{port}")
    else:
        text = haproxy_config(load(data_dir=tmp_path, bind="127.0.0.1", port=front), api, [first, second])
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    async with HttpServer(SystemClock(), head_timeout_s=30) as server:
        for one, node in zip(sockets, nodes, strict=True):
            await server.listen([one], node.application())
        process = spawn([haproxy, "-db", "-q", "-f", file])
        try:
            world = Balanced(front, nodes)
            async with asyncio.timeout(60):
                while not await serves(world):
                    assert process.poll() is None
            yield world
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)


async def serves(world: Balanced) -> bool:
    try:
        answers = [await world.ask(f"GET {path} HTTP/1.0\r\nHost: hearth\r\n\r\n") for path in ("/r/a", "/version")]
    except OSError:
        return False
    return all(answer.status == 200 for answer in answers)


async def test_what_is_a_call_for_haproxy_is_one_for_the_node_and_nothing_else_is(balanced: Balanced) -> None:
    for path in PATHS:
        for token in ("", ADMIN, RUNNER):
            answer = await balanced.ask(f"GET {path} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n\r\n", token)
            told = answer.told
            if not told:
                assert answer.status in (400, 401, 403, 404), (path, answer)
                continue
            assert (told["node"] == "runner") == (told["read"] == "call"), (path, told)
            assert not told["path"].startswith("/v1/runner"), path
            assert token or told["read"] == "call" or told["path"] in OPEN, "no spelling stands for a token"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_usual_paths_lead_where_they_should(balanced: Balanced, version: str) -> None:
    for path, node in (
        ("/r/a/f", "runner"),
        ("/%72/a/f", "runner"),
        ("/invoke/x", "runner"),
        ("/t/a/s", "runner"),
        ("/v1/apps", "api"),
        ("/ui/", "api"),
        ("/v2/a/f/tags/list", "api"),
    ):
        answer = await balanced.ask(f"GET {path} HTTP/{version}\r\nHost: hearth\r\nConnection: close\r\n\r\n", ADMIN)
        assert (answer.status, answer.told["node"]) == (200, node), path
    between_nodes = await balanced.ask("GET /v1/runner/async HTTP/1.0\r\nHost: hearth\r\n\r\n", RUNNER)
    assert between_nodes.status == 404


async def test_no_framing_hides_a_request_from_haproxy(balanced: Balanced) -> None:
    length = len(HIDDEN)
    for name, fields in FRAMINGS.items():
        for path in ("/v1/apps", "/r/a/f"):
            for node in balanced.nodes:
                node.paths.clear()
            head = f"POST {path} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n{fields.format(length)}"
            answer = await balanced.ask(head, ADMIN)
            read = [seen for node in balanced.nodes for seen in node.paths]
            assert read in ([], [path]), f"{name}: {read}"
            assert answer.head.count("HTTP/1.") + answer.body.count(b"HTTP/1.1 ") <= 1, name
