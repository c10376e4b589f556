"""Who gets through the door: tokens, modes, web pages, names of hosts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.clock import FakeClock
from tests.support.door import guarded

from hearth.authorize.rules import Action, entry_point
from hearth.images.layout import ImageStore
from hearth.models.errors import StartUpError
from hearth.models.principal import AuthMode
from hearth.server.api import Api
from hearth.server.browsers import parse_hosts
from hearth.server.door import open_only, principal_of
from hearth.server.registry.registry import Registry
from hearth.server.ui.data import Data

ADMIN, RUNNER = "token-of-the-admin", "token-of-the-runners"
EVIL = "https://evil.example"
CROSS_SITE: dict[str, Any] = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}


@dataclasses.dataclass
class Behind:
    """An application that remembers what reached it."""

    seen: list[str] = dataclasses.field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the name of the principal."""
        self.seen.append(f"{scope['method']} {scope['path']}")
        await PlainTextResponse(principal_of(scope).role.value)(scope, receive, send)


@dataclasses.dataclass
class World:
    """A door, and what is behind it."""

    mode: AuthMode
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    behind: Behind = dataclasses.field(default_factory=Behind)

    def __post_init__(self) -> None:
        self.app: ASGIApp = guarded(self.behind, self.mode, **{"admin": ADMIN, "runner": RUNNER, **self.options})

    async def ask(
        self, method: str, path: str, token: str = "", body: bytes = b"", client: str = "127.0.0.1", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, client=(client, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as http:
            return await http.request(method, path, content=body or None, headers={**shown, **named})


REQUIRED = World(AuthMode.REQUIRED)
OPEN_PATHS = ["/", "/version", "/healthz", "/readyz"]
CONTROL = [
    ("GET", "/stats"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/apps"),
    ("POST", "/v1/apps"),
    ("PATCH", "/v1/apps/a"),
    ("DELETE", "/v1/apps/a"),
    ("PUT", "/v1/apps/a/routes/b"),
    ("GET", "/v1/apps/a/calls/x/log"),
    ("GET", "/shutdown"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/v1/apps"),
    ("POST", "/"),
]


def test_every_route_of_the_server_has_a_rule() -> None:
    class Everything:
        def __getattr__(self, name: str) -> Any:
            return self

    registry = Registry(ImageStore(Path()))
    parts: Any = Everything()
    api = Api(parts, FakeClock(), dict, vault=parts, runners=parts, images=parts, registry=registry)
    entries = [*api.entry_points(), *Data(parts, parts, FakeClock(), {}).entry_points()]
    assert {path.split("/")[1] for _, path in entries} >= {"v1", "v2", "ui"}
    for method, path in entries:
        assert entry_point(method, path)[0] is not Action.UNKNOWN, f"{method} {path} has no rule: authorize/rules.py"


# -- a token is required ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), CONTROL)
async def test_nothing_but_a_valid_token_opens(method: str, path: str) -> None:
    wrong: list[dict[str, Any]] = [{}, *[{"Authorization": text} for text in (ADMIN, f"Basic {ADMIN}", "Bearer x")]]
    for shown in wrong:
        world = World(AuthMode.REQUIRED)
        answer = await world.ask(method, path, **shown)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert world.behind.seen == []
    world = World(AuthMode.REQUIRED)
    assert (await world.ask(method, path, ADMIN)).text == "admin"
    assert world.behind.seen == [f"{method} {path}"]


async def test_a_query_or_a_cookie_is_no_token() -> None:
    world = World(AuthMode.REQUIRED)
    answer = await world.ask("GET", f"/v1/apps?token={ADMIN}&access_token={ADMIN}", Cookie=f"token={ADMIN}")
    assert answer.status_code == 401


@pytest.mark.parametrize("path", OPEN_PATHS)
async def test_versions_and_readiness_are_open(path: str) -> None:
    assert (await REQUIRED.ask("GET", path)).text == "anonymous"
    assert (await REQUIRED.ask("GET", path, "wrong")).text == "anonymous"
    assert (await REQUIRED.ask("GET", path, ADMIN)).text == "admin"


@pytest.mark.parametrize("mode", AuthMode)
async def test_function_calls_are_open_to_everybody_and_every_page(mode: AuthMode) -> None:
    world = World(mode)
    for headers in ({}, {"Origin": EVIL}, {**CROSS_SITE, "Host": "evil.example"}, {"Authorization": "Bearer x"}):
        answer = await world.ask("POST", "/r/a/f", body=b"x=y", **{"Content-Type": "text/plain", **headers})
        assert answer.status_code == 200
    assert len(world.behind.seen) == 4


@pytest.mark.parametrize("mode", AuthMode)
async def test_the_runner_api_needs_a_runners_token_in_every_mode(mode: AuthMode) -> None:
    for token, status in (("", 401), ("wrong", 401), (ADMIN, 403), (RUNNER, 200)):
        world = World(mode)
        assert (await world.ask("GET", "/v1/runner/async", token)).status_code == status
        assert bool(world.behind.seen) == (status == 200)
    closed = World(mode, {"runner": ""})
    for token in ("", ADMIN, RUNNER):
        answer = await closed.ask("GET", "/v1/runner/async", token)
        assert (answer.status_code, "no FN_RUNNER_TOKEN" in answer.text) == (403, True)
    assert closed.behind.seen == []


async def test_a_runner_may_read_definitions_and_not_change_them() -> None:
    assert (await REQUIRED.ask("GET", "/v1/apps/a/routes/b", RUNNER)).text == "runner"
    answer = await REQUIRED.ask("PUT", "/v1/apps/a/routes/b", RUNNER)
    assert (answer.status_code, "routes:write" in answer.text) == (403, True)


async def test_many_wrong_tokens_of_an_address_are_put_off_and_lock_nobody_out() -> None:
    clock = FakeClock()
    world = World(AuthMode.REQUIRED, {"clock": clock})
    statuses = [(await world.ask("GET", "/v1/apps", f"wrong{n}", client="192.0.2.1")).status_code for n in range(20)]
    assert statuses == [401] * 10 + [429] * 10
    answer = await world.ask("GET", "/v1/apps", "wrong", client="192.0.2.1")
    assert int(answer.headers["retry-after"]) > 0
    assert (await world.ask("GET", "/v1/apps", "wrong", client="192.0.2.2")).status_code == 401
    assert (await world.ask("GET", "/v1/apps", ADMIN, client="192.0.2.1")).status_code == 200
    assert (await world.ask("GET", "/v1/apps", client="192.0.2.1")).status_code == 401
    clock.advance(int(answer.headers["retry-after"]))
    assert (await world.ask("GET", "/v1/apps", "wrong", client="192.0.2.1")).status_code == 401


async def test_no_error_shows_a_token() -> None:
    for token in ("wrong-token", RUNNER):
        assert token not in (await REQUIRED.ask("POST", "/v1/apps", token)).text


# -- no token is required ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AuthMode.LOOPBACK, AuthMode.OFF])
@pytest.mark.parametrize(("method", "path"), CONTROL)
async def test_programs_need_no_token(mode: AuthMode, method: str, path: str) -> None:
    world = World(mode)
    assert (await world.ask(method, path)).text == "local"
    assert (await world.ask(method, path, "one of an extension")).text == "local"
    # as old clients do: a body of any type
    assert (await world.ask(method, path, body=b"{}", **{"Content-Type": "text/plain"})).text == "local"


# -- web pages --------------------------------------------------------------------------------------------------------

PAGES = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    {"Origin": "http://localhost:8080.evil.example"},
    {"Origin": EVIL, "Sec-Fetch-Site": "none"},
    {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-site"},
    CROSS_SITE,
    {**CROSS_SITE, "Sec-Fetch-Mode": "navigate"},
    # a page of a function: it has the API's origin
    {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
    {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://localhost:8080"},
]


@pytest.mark.parametrize("headers", PAGES, ids=str)
@pytest.mark.parametrize("mode", [AuthMode.LOOPBACK, AuthMode.OFF])
async def test_a_web_page_can_neither_read_nor_change_anything(mode: AuthMode, headers: dict[str, Any]) -> None:
    world = World(mode)
    for method, path in CONTROL:
        if path in ("/docs", "/v1/openapi.json"):
            continue
        for body in (b"", b'{"app":{"name":"x"}}'):
            answer = await world.ask(method, path, body=body, **{"Content-Type": "text/plain", **headers})
            assert (answer.status_code, "FN_API_CORS" in answer.text) == (403, True), (method, path)
    assert world.behind.seen == []


@pytest.mark.parametrize("headers", PAGES, ids=str)
async def test_a_web_page_gets_no_details_of_what_is_open(headers: dict[str, Any]) -> None:
    assert (await World(AuthMode.LOOPBACK).ask("GET", "/readyz", **headers)).text == "anonymous"


async def test_an_address_that_somebody_types_is_no_web_page() -> None:
    typed: dict[str, Any] = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert (await World(AuthMode.LOOPBACK).ask("GET", "/v1/apps", **typed)).text == "local"


async def test_the_documentation_can_be_linked_to_and_loads_what_it_shows() -> None:
    world = World(AuthMode.LOOPBACK)
    linked: dict[str, Any] = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await world.ask("GET", "/docs", **linked)).status_code == 200
    own: dict[str, Any] = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert (await world.ask("GET", "/v1/openapi.json", **own)).status_code == 200
    assert (await world.ask("GET", "/v1/openapi.json", **CROSS_SITE)).status_code == 403


async def test_a_page_of_this_origin_that_knows_a_token_is_served() -> None:
    own: dict[str, Any] = {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
    assert (await World(AuthMode.LOOPBACK).ask("GET", "/v1/apps", ADMIN, **own)).text == "admin"
    assert (await World(AuthMode.REQUIRED).ask("GET", "/v1/apps", ADMIN, **own)).text == "admin"
    assert (await World(AuthMode.REQUIRED).ask("GET", "/v1/apps", ADMIN, Origin=EVIL)).status_code == 403


@pytest.mark.parametrize("cors", ["http://ui.example, https://other.example", "*"])
async def test_pages_that_are_listed_work_as_before(cors: str) -> None:
    listed: dict[str, Any] = {"Origin": "http://UI.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    world = World(AuthMode.LOOPBACK, {"cors": cors})
    assert (await world.ask("OPTIONS", "/v1/apps", **listed)).status_code == 200
    assert world.behind.seen == []
    answer = await world.ask("POST", "/v1/apps", body=b"{}", **listed, **{"Content-Type": "application/json"})
    assert (answer.text, answer.headers["access-control-allow-origin"] in ("*", "http://UI.example")) == ("local", True)
    locked = World(AuthMode.REQUIRED, {"cors": cors})
    answer = await locked.ask("GET", "/v1/apps", **listed)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (401, True)
    assert (await locked.ask("GET", "/v1/apps", ADMIN, **listed)).text == "admin"


async def test_an_image_on_a_foreign_page_asks_nothing_although_another_page_is_listed() -> None:
    world = World(AuthMode.LOOPBACK, {"cors": "*"})
    assert (await world.ask("GET", "/v1/apps", **CROSS_SITE)).status_code == 403


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain; application/json", 415),
        ("", 415),
    ],
)
async def test_a_browsers_body_is_declared_as_json(kind: str, status: int) -> None:
    listed: dict[str, Any] = {"Origin": "http://ui.example"}
    world = World(AuthMode.LOOPBACK, {"cors": "http://ui.example"})
    answer = await world.ask("POST", "/v1/apps", body=b"{}", **listed, **({"Content-Type": kind} if kind else {}))
    assert answer.status_code == status
    assert (await world.ask("DELETE", "/v1/apps/a", **listed)).status_code == 200, "there is no body"


# -- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8080", "192.0.2.1", "h", "0.0.0.0", "x:y:z"]
)
async def test_a_foreign_name_reaches_nothing_on_loopback(host: str) -> None:
    world = World(AuthMode.LOOPBACK)
    for method, path in CONTROL:
        answer = await world.ask(method, path, Host=host)
        assert (answer.status_code, "FN_HOSTS" in answer.text) == (403, True)
    assert world.behind.seen == []
    assert (await world.ask("GET", "/readyz", Host=host)).text == "anonymous"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:1", "127.0.0.1:8080", "127.0.0.9", "[::1]:8080", "mine.lan"])
async def test_names_of_loopback_and_those_that_are_listed_are_known(host: str) -> None:
    world = World(AuthMode.LOOPBACK, {"hosts": " Mine.lan ,other"})
    assert (await world.ask("GET", "/v1/apps", Host=host)).text == "local"


@pytest.mark.parametrize(
    "host",
    ["[::1]evil.example", "[::1].evil.example:80", "localhost:evil.example", "localhost:80:80", "[localhost", "::1]"],
)
async def test_a_host_that_only_begins_like_a_known_one_is_foreign(host: str) -> None:
    world = World(AuthMode.LOOPBACK)
    assert (await world.ask("GET", "/v1/apps", Host=host)).status_code == 403
    assert world.behind.seen == []


async def test_an_opaque_origin_is_no_page_of_a_node_without_a_name() -> None:
    world = World(AuthMode.REQUIRED)
    opaque: list[dict[str, Any]] = [{"Origin": "null"}, {"Origin": "://"}]
    for shown in (*opaque, {"Origin": "null", "Sec-Fetch-Site": "same-origin"}):
        assert (await world.ask("GET", "/v1/apps", ADMIN, **shown, Host="")).status_code == 403
    assert world.behind.seen == []


def test_an_open_node_is_reached_by_addresses_and_plain_names_and_a_locked_one_by_any() -> None:
    for mode, host, admitted in (
        (AuthMode.OFF, "192.0.2.1:8080", True),
        (AuthMode.OFF, "[2001:db8::1]:8080", True),
        (AuthMode.OFF, "api", True),
        (AuthMode.OFF, "evil.example", False),
        (AuthMode.OFF, "", True),
        (AuthMode.REQUIRED, "any.example", True),
    ):
        assert parse_hosts("", mode, "0.0.0.0").admits(host) is admitted, (mode, host)
    listed = parse_hosts("fns.example", AuthMode.REQUIRED, "0.0.0.0")
    assert listed.admits("fns.example:443")
    assert not listed.admits("any.example")
    assert parse_hosts("*", AuthMode.LOOPBACK, "127.0.0.1").admits("any.example")


@pytest.mark.parametrize("text", ["http://a.example", "a.example:8080", "a.example/x", "me@a.example"])
def test_an_entry_that_is_no_name_keeps_a_node_from_starting(text: str) -> None:
    with pytest.raises(StartUpError, match=r"^FN_HOSTS: "):
        parse_hosts(f"fine, {text}", AuthMode.LOOPBACK, "127.0.0.1")


# -- a listener for calls only ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", AuthMode)
@pytest.mark.parametrize("token", ["", ADMIN, RUNNER])
async def test_where_only_calls_are_served_no_token_opens_more(mode: AuthMode, token: str) -> None:
    world = World(mode)
    world.app = open_only(world.app)
    for method, path in [*CONTROL, ("GET", "/v1/runner/async"), ("GET", "/V1/apps"), ("GET", "//v1/apps")]:
        answer = await world.ask(method, path, token)
        assert (answer.status_code, "FN_ADMIN_BIND" in answer.text) == (404, True), (method, path)
    assert world.behind.seen == []
    for path in OPEN_PATHS:
        assert (await world.ask("GET", path, token)).text == "anonymous"
    assert (await world.ask("POST", "/r/a/f", token)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/apps/a/calls/1/result", "/v2/fns/f/calls/1/result"])
async def test_the_token_of_a_result_leads_to_results_only(path: str) -> None:
    world = World(AuthMode.REQUIRED)
    assert (await world.ask("GET", f"{path}?token=x")).text == "anonymous"
    for other in (
        path.replace("/1/result", "/result"),
        path.replace("/1/result", ""),
        path.replace("/1/result", "/1/log/result"),
        f"/v1/apps/calls{path}",
        f"{path}/",
    ):
        assert (await world.ask("GET", f"{other}?token=x")).status_code == 401, other
