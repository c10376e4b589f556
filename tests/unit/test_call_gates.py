"""What callers show to a route: who is let through, what its function sees, and what the others learn."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.agent import Bench, Records, bench
from tests.support.clock import FakeClock
from tests.support.http_connection import FakeClient, shared_of

from hearth.access.cache import CachedDefinitions
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import Tokens, digest, new_token
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.call_auth import Signature
from hearth.models.errors import SecretGone, StoreUnavailable
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnInvalidAuth
from hearth.models.ids import encode
from hearth.models.principal import ADMIN, RUNNER, Role
from hearth.models.quotas import Quotas
from hearth.models.route import Route
from hearth.models.secret import SecretValues
from hearth.models.token import Token
from hearth.server.call_gates import CallGates
from hearth.server.invoke import InvokeFront

KEY = "key-of-the-webhook"
ADMINS, RUNNERS = "token-of-the-admin", "token-of-the-runners"
GITHUB = {"style": "github", "secret": "HOOK"}


class Stored(Records):
    """Definitions, secrets and tokens; keeps what functions get."""

    def __init__(self) -> None:
        super().__init__()
        self.app = App(name="a", id="1")
        self.accepted: list[Call] = []
        self.secrets = {"HOOK": KEY}
        self.tokens: dict[str, Token] = {}
        self.is_away = False

    async def enqueue(self, call: Call) -> None:
        self.accepted.append(call)

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        for name in names:
            if name not in self.secrets:
                raise SecretGone(app_name, name)
        return SecretValues({name: self.secrets[name] for name in names}, dict.fromkeys(names, "1"))

    async def find_token(self, key: str) -> Token | None:
        if self.is_away:
            raise StoreUnavailable("away")
        return self.tokens.get(key)

    def token(self, role: Role, *apps: str) -> str:
        """Store a token; return its value."""
        value = new_token()
        made = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        key, number = digest(value.encode()), len(self.tokens)
        self.tokens[key] = Token(id=f"{number}", name="t", role=role, apps=apps, digest=key, created_at=made)
        return value


class World:
    """A node with routes, and a client of it."""

    def __init__(self, made: Bench, stored: Stored, default: str) -> None:
        self.stored = stored
        self.clock = FakeClock()
        self.checked = StoredTokens(stored.find_token, self.clock)
        known = Tokens([(ADMIN, ADMINS), (RUNNER, RUNNERS)])
        authenticator = Authenticator(known, WrongTokens(self.clock), self.checked)
        self.definitions = CachedDefinitions(stored, self.clock, stored)
        self.front = InvokeFront(
            made.agent,
            made.functions,
            CallGates(authenticator, self.clock, default),
            self.definitions,
            stored,
            self.clock,
            lambda: encode(7),
            max_held_bytes=1000,
        )
        self.client: FakeClient

    def route(self, path: str = "/f", **fields: Any) -> None:
        given = {"image": "x", "type": "async", "format": "json", "auth": "token", **fields}
        if isinstance(given.get("signature"), dict):
            given["signature"] = Signature(**given["signature"])
        self.stored.routes[path] = Route(app_name="a", path=path, **given)
        self.definitions.forget("a")

    async def call(
        self, *headers: tuple[str, str], body: bytes = b"body", path: str = "/f", length: bool = True
    ) -> tuple[int, dict[str, str], Any]:
        """Send a request; return the status, the headers and the JSON of its answer."""
        lines = [f"POST /r/a{path} HTTP/1.1", "Host: h", *[f"{name}: {value}" for name, value in headers]]
        lines.append(f"Content-Length: {len(body)}" if length else "Transfer-Encoding: chunked")
        self.client.send("\r\n".join(lines) + "\r\n\r\n")
        self.client.send(body if length else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        head, _, text = (await self.client.settled()).partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        return int(first.split()[1]), dict(field.split(": ", 1) for field in fields), json.loads(text)

    async def status(self, token: str, path: str = "/f") -> int:
        return (await self.call(("Authorization", f"Bearer {token}"), path=path))[0]


@contextlib.asynccontextmanager
async def world(default: str = "open") -> AsyncIterator[World]:
    stored = Stored()
    async with bench() as made:
        opened = World(made, stored, default)
        async with shared_of(calls=opened.front.handler) as shared:
            opened.client = FakeClient(shared)
            yield opened
            opened.client.leave()
        await opened.definitions.close()
        await opened.checked.close()


def message(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str]:
    return answer[0], answer[2]["error"]["message"]


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "apps", "status"),
    [
        (Role.INVOKER, (), 202),
        (Role.INVOKER, ("a", "b"), 202),
        (Role.DEPLOYER, ("a",), 202),
        (Role.ADMIN, (), 202),
        (Role.ADMIN, ("a",), 202),
        (Role.INVOKER, ("b",), 403),
        (Role.ADMIN, ("b",), 403),
        (Role.VIEWER, (), 403),
        (Role.VIEWER, ("a",), 403),
        (Role.RUNNER, (), 403),
    ],
    ids=str,
)
async def test_a_route_that_asks_for_a_token_is_called_by_whoever_may_invoke_its_app(
    role: Role, apps: tuple[str, ...], status: int
) -> None:
    async with world() as node:
        node.route()
        token = node.stored.token(role, *apps)
        for _ in range(2):  # the second check needs no store
            answer = await node.call(("Authorization", f"Bearer {token}"))
            assert answer[0] == status
            if status == 403:
                assert f"role {role} does not have the action functions:invoke" in message(answer)[1]
        assert len(node.stored.accepted) == (2 if status == 202 else 0)


async def test_the_nodes_own_admin_token_calls_every_function_and_that_of_runners_none() -> None:
    async with world() as node:
        node.route()
        assert (await node.status(ADMINS), await node.status(RUNNERS)) == (202, 403)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Authorization", ""),),
        (("Authorization", "Bearer"),),
        (("Authorization", "Bearer wrong"),),
        (("Authorization", f"Basic {ADMINS}"),),
        (("Authorization", ADMINS),),
        (("Authorization", f"Bearer {ADMINS}"), ("authorization", f"Bearer {ADMINS}")),
        (("Proxy-Authorization", f"Bearer {ADMINS}"),),
        (("Cookie", f"Authorization={ADMINS}"),),
        (("X-Forwarded-Authorization", f"Bearer {ADMINS}"),),
    ],
    ids=str,
)
async def test_without_a_valid_token_there_is_no_call_and_the_answer_says_what_to_send(
    headers: tuple[tuple[str, str], ...],
) -> None:
    async with world() as node:
        node.route()
        answer = await node.call(*headers)
        assert message(answer) == (401, "This request needs a valid token: send the header Authorization: Bearer TOKEN")
        assert answer[1]["www-authenticate"] == "Bearer"
        assert node.stored.accepted == []


async def test_the_function_does_not_see_the_token_and_sees_everything_else() -> None:
    async with world() as node:
        node.route()
        token = node.stored.token(Role.INVOKER)
        await node.call(("aUTHORIZATION", f"bearer {token}"), ("X-Other", "kept"))
        (call,) = node.stored.accepted
        assert "Authorization" not in call.headers
        assert call.headers["X-Other"] == ["kept"]
        assert (call.payload, token in str(call)) == (b"body", False)


async def test_an_open_route_passes_the_header_on() -> None:
    async with world() as node:
        node.route(auth="open")
        assert (await node.call(("Authorization", "Bearer for-the-function")))[0] == 202
        assert node.stored.accepted[0].headers["Authorization"] == ["Bearer for-the-function"]


@pytest.mark.parametrize(
    ("route", "app", "default", "status"),
    [
        ("", "", "open", 202),
        ("", "", "token", 401),
        ("", "token", "open", 401),
        ("", "open", "token", 202),
        ("open", "token", "token", 202),
        ("token", "open", "open", 401),
        ("bogus", "open", "open", 400),
        ("", "bogus", "open", 400),
        ("signed", "open", "open", 400),
    ],
)
async def test_the_route_decides_then_its_app_then_the_node_and_what_nobody_knows_is_closed(
    route: str, app: str, default: str, status: int
) -> None:
    async with world(default) as node:
        node.stored.app = App(name="a", id="1", auth=app)
        node.route(auth=route)
        for _ in range(2):
            assert (await node.call())[0] == status
        assert len(node.stored.accepted) == (2 if status == 202 else 0)


@pytest.mark.parametrize(
    ("fn", "app", "default", "is_closed"),
    [
        ({}, "", "open", False),
        ({}, "token", "open", True),
        ({"hearth/auth": '"token"'}, "open", "open", True),
        ({"hearth/auth": '"open"'}, "token", "token", False),
    ],
)
def test_the_fn_decides_then_its_app_then_the_node(fn: dict[str, str], app: str, default: str, is_closed: bool) -> None:
    clock = FakeClock()
    gates = CallGates(Authenticator(Tokens([]), WrongTokens(clock)), clock, default)
    found = gates.of_fn(App(name="a", id="1", auth=app), Fn(id="f", name="f", app_id="1", annotations=fn))
    assert (found is not None) is is_closed


@pytest.mark.parametrize("text", ['"signed"', '"TOKEN"', "true", '["token"]', '"tok\\u0065n"'])
def test_a_fn_that_asks_for_what_nobody_knows_is_closed(text: str) -> None:
    clock = FakeClock()
    gates = CallGates(Authenticator(Tokens([]), WrongTokens(clock)), clock)
    stored = Fn(id="f", name="f", app_id="1", annotations={"hearth/auth": text})
    with pytest.raises(FnInvalidAuth):
        gates.of_fn(App(name="a", id="1", auth="open"), stored)


async def test_a_route_that_is_closed_while_it_is_served_is_closed_at_once_on_its_node() -> None:
    async with world() as node:
        node.route(auth="open")
        assert (await node.call())[0] == 202
        node.route(auth="token")
        assert (await node.call())[0] == 401
        node.route(auth="open")
        assert (await node.call())[0] == 202


async def test_a_revoked_token_is_refused_at_once_here_and_after_5_s_elsewhere() -> None:
    async with world() as node:
        node.route()
        here, elsewhere = node.stored.token(Role.INVOKER), node.stored.token(Role.INVOKER)
        assert (await node.status(here), await node.status(elsewhere)) == (202, 202)
        node.stored.tokens.clear()
        node.checked.forget("0")
        assert (await node.status(here), await node.status(elsewhere)) == (401, 202)
        node.clock.advance(5)
        assert await node.status(elsewhere) == 401


async def test_while_tokens_cannot_be_checked_nobody_is_let_through_on_trust() -> None:
    async with world() as node:
        node.route()
        known, other = node.stored.token(Role.INVOKER), node.stored.token(Role.INVOKER)
        assert await node.status(known) == 202
        node.stored.is_away = True
        assert (await node.status(known), await node.status(other)) == (202, 503)
        node.clock.advance(5)
        assert await node.status(known) == 503


async def test_an_address_that_tries_tokens_is_put_off_and_a_valid_one_works_even_then() -> None:
    async with world() as node:
        node.route()
        valid = node.stored.token(Role.INVOKER)
        with capture_logs() as logged:
            statuses = [await node.status(new_token()) for _ in range(1000)]
        assert statuses[:10] == [401] * 10
        assert set(statuses[10:]) == {429}
        assert [entry["address"] for entry in logged if entry["event"] == "wrong token"] == ["192.0.2.1"] * 10
        assert (await node.status(valid), (await node.call())[0]) == (202, 401)


async def test_callers_without_proof_use_up_no_quota_of_the_app() -> None:
    async with world() as node:
        node.stored.app = App(name="a", id="1", quotas=Quotas(calls_per_second=1, burst=1))
        node.route()
        assert {await node.status("wrong") for _ in range(20)} <= {401, 429}
        assert await node.status(ADMINS) == 202
        assert await node.status(ADMINS) == 429, "the quota is in force"
        node.route("/hook", auth="signed", signature=GITHUB)
        node.clock.advance(1)
        assert {(await node.call(github(b"other"), path="/hook"))[0] for _ in range(20)} == {401}
        assert (await node.call(github(), path="/hook"))[0] == 202


# -- signatures -------------------------------------------------------------------------------------------------------


def github(body: bytes = b"body", key: str = KEY) -> tuple[str, str]:
    return "X-Hub-Signature-256", f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"


def stripe(node: World, body: bytes = b"body") -> tuple[str, str]:
    at = node.clock.now_ms() // 1000
    return "Stripe-Signature", f"t={at},v1={hmac.new(KEY.encode(), b'%d.%b' % (at, body), hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunked"])
async def test_a_signed_call_reaches_the_function_whole(length: bool) -> None:
    async with world() as node:
        node.route(auth="signed", signature=GITHUB)
        assert (await node.call(github(), length=length))[0] == 202
        assert [call.payload for call in node.stored.accepted] == [b"body"]
        assert (await node.call(github(b""), body=b""))[0] == 202


async def test_a_body_that_is_not_signed_reaches_no_function_and_nobody_learns_what_was_wrong() -> None:
    async with world() as node:
        node.route(auth="signed", signature=GITHUB)
        answers = [
            await node.call(),
            await node.call(github(b"other")),
            await node.call(github(key="other")),
            await node.call(("X-Hub-Signature-256", "sha256=0")),
            await node.call(stripe(node)),
            await node.call(("Authorization", f"Bearer {ADMINS}")),
        ]
        assert {message(answer) for answer in answers} == {(401, "This call needs a valid signature")}
        assert {answer[1]["www-authenticate"] for answer in answers} == {"Signature"}
        assert node.stored.accepted == []


async def test_without_a_possible_signature_the_body_is_not_waited_for() -> None:
    async with world() as node:
        node.route(auth="signed", signature=GITHUB)
        node.client.send("POST /r/a/f HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n")
        assert (await node.client.settled()).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_signed_body_has_a_limit(kind: str, length: bool) -> None:
    async with world() as node:
        node.route(auth="signed", signature=GITHUB, format="http", type=kind)
        large = b"x" * 1001
        assert (await node.call(github(large), body=large, length=length))[0] == 413
        assert node.stored.accepted == []


async def test_a_signature_with_a_time_is_good_for_its_tolerance() -> None:
    async with world() as node:
        node.route(auth="signed", signature={"style": "stripe", "secret": "HOOK", "tolerance": 60})
        shown = stripe(node)
        assert (await node.call(shown))[0] == 202
        node.clock.set_wall(60)
        assert (await node.call(shown))[0] == 202
        node.clock.set_wall(1)
        assert (await node.call(shown))[0] == 401
        node.clock.set_wall(-121)
        assert (await node.call(shown))[0] == 202, "the clock of the sender may be ahead"
        node.clock.set_wall(-1)
        assert (await node.call(shown))[0] == 401


async def test_without_its_key_a_route_is_closed_and_the_operator_learns_why() -> None:
    async with world() as node:
        node.stored.secrets.clear()
        node.route(auth="signed", signature=GITHUB)
        with capture_logs() as logged:
            answers = [await node.call(github()), await node.call(github(key="")), await node.call()]
        assert {message(answer) for answer in answers} == {(503, "Signatures of this route cannot be checked now")}
        (told,) = [entry for entry in logged if entry["event"] == "signatures cannot be checked"]
        assert (told["log_level"], told["app_name"], told["path"]) == ("error", "a", "/f")
        assert told["error"] == "Secret HOOK of app a does not exist (hearth secrets set a HOOK)"
        node.stored.secrets["HOOK"] = KEY
        node.definitions.forget("a")
        assert (await node.call(github()))[0] == 202


async def test_a_signature_that_no_caller_shows_needs_no_key() -> None:
    async with world() as node:
        node.stored.secrets.clear()
        node.route(auth="token", signature=GITHUB)
        with capture_logs() as logged:
            assert await node.status(ADMINS) == 202
        assert [entry for entry in logged if entry["log_level"] == "error"] == []


async def test_the_function_does_not_get_the_key() -> None:
    async with world() as node:
        node.route(auth="signed", signature=GITHUB)
        await node.call(github())
        (call,) = node.stored.accepted
        assert call.secrets == []
        assert KEY not in str(call)


# -- sync calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["token", "signed"])
async def test_a_sync_function_runs_only_for_whoever_may_call_it(auth: str) -> None:
    body = json.dumps({"echo": "done"}).encode()
    async with world() as node:
        node.route(auth=auth, type="sync", image="obey", signature=GITHUB)
        good = ("Authorization", f"Bearer {ADMINS}") if auth == "token" else github(body)
        assert (await node.call(body=body))[0] == 401
        assert node.stored.ended == []
        node.client.send(
            f"POST /r/a/f HTTP/1.1\r\nHost: h\r\n{good[0]}: {good[1]}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        node.client.send(body[:3])
        node.client.send(body[3:])
        received = b""
        for _ in range(10):
            received += await node.client.settled()
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.endswith(b"done")
