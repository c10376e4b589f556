"""The work of checking a caller: every function on this way costs processor time, at each call of a closed route.

``bench/callers.py`` measures the time. A count is the same on every machine.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from joserfc.jwk import KeySet
from tests.support.clock import FakeClock
from tests.support.oidc_provider import AUDIENCE, Provider

import hearth
from hearth.access.cache import Definition
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.issuer import IssuerKeys
from hearth.authorize.oidc import Oidc, OidcRules
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import Tokens, digest, new_token
from hearth.models.app import App
from hearth.models.principal import ADMIN, Role
from hearth.models.route import Route
from hearth.models.secret import SecretValues
from hearth.models.token import Token
from hearth.server.call_gates import CallGates
from hearth.server.call_io import CallExchange

OWN, STORED = new_token(), new_token()
_CALLS = 20
_ROOT = str(Path(hearth.__file__).parent)
_TESTS = str(Path(__file__).parents[1])
_EXCHANGE = cast(CallExchange, None)  # a valid proof asks nothing of it


class World:
    """The gates of a node that knows its own token, a stored one, and those of an issuer."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.is_away = self.refused = False
        self.provider = Provider("https://issuer.example")
        made = dt.datetime.now(dt.UTC)
        token = Token(
            id="1", name="t", role=Role.INVOKER, digest=digest(STORED.encode()), created_at=made, last_used_at=made
        )

        async def find(key: str) -> Token | None:
            return token if key == token.digest else None

        self.stored = StoredTokens(find, clock)
        self.keys = IssuerKeys(self.provider.issuer, clock, self.fetch)
        roles = {"deploy": Role.DEPLOYER}
        rules = OidcRules(issuer=self.provider.issuer, audience=AUDIENCE, role_claim="roles", roles=roles)
        oidc = Oidc(rules, self.keys, clock)
        self.gates = CallGates(Authenticator(Tokens([(ADMIN, OWN)]), WrongTokens(clock), self.stored, oidc), clock)

    async def fetch(self, url: str) -> bytes:
        if self.is_away:
            self.refused = True
            raise OSError("no route to host")
        keys = KeySet(self.provider.keys).as_dict(private=False)
        found = {"issuer": self.provider.issuer, "jwks_uri": f"{self.provider.issuer}/keys"}
        return json.dumps(keys if url.endswith("/keys") else found).encode()

    def definition(self, auth: str) -> Definition:
        app = App(name="a", id="1")
        route = Route(app_name="a", path="/f", image="x", auth=auth)
        return Definition(until=0.0, app=app, route=route, secrets=SecretValues({}, {}), key="")

    def jwt(self) -> str:
        now = self.clock.now_ms() // 1000
        return self.provider.sign(iat=now, exp=now + 3600)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(FakeClock())
    async with made.keys:
        yield made
    await made.stored.close()


class Work:
    """The functions that Hearth's code is made of, those in C that it calls, and those of libraries."""

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self.native: Counter[str] = Counter()
        self.foreign: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        name, code = frame.f_code.co_filename, frame.f_code
        if event == "call" and name.startswith(_ROOT):
            self.own[code.co_qualname] += 1
        elif event == "c_call" and name.startswith(_ROOT):
            self.native[arg.__qualname__] += 1
        elif event == "call" and not name.startswith(_TESTS):
            self.foreign[f"{name}: {code.co_qualname}"] += 1


def test_nothing_stands_before_an_open_route(world: World) -> None:
    assert world.gates.of(world.definition("open")) is None
    assert world.gates.of(world.definition("")) is None


@pytest.mark.parametrize(
    ("kind", "own", "native"), [("stored", 7, 9), ("own", 9, 11), ("issuer", 9, 10), ("issuer away", 11, 10)]
)
async def test_a_known_token_is_checked_by_few_functions(world: World, kind: str, own: int, native: int) -> None:
    gate = world.gates.of(world.definition("token"))
    assert gate is not None
    token = {"stored": STORED, "own": OWN}.get(kind) or world.jwt()

    async def no_body() -> bytes:
        return b""

    async def admit() -> None:
        assert await gate.admit(_EXCHANGE, {"Authorization": [f"Bearer {token}"]}, no_body) is None

    await admit()  # the first one is looked up, or its signature verified
    if kind == "issuer away":
        world.is_away = True
        world.clock.advance(601)
        await admit()
        for _ in range(10):
            await asyncio.sleep(0)
        assert world.refused
    work = Work()
    sys.setprofile(work)
    try:
        for _ in range(_CALLS):
            await admit()
    finally:
        sys.setprofile(None)
    assert work.own.total() / _CALLS <= own, work.own
    assert work.native.total() / _CALLS <= native, work.native
    assert not work.foreign
