"""The keys of an OpenID Connect provider over real HTTPS, as a call of a closed route meets them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from tests.support.clock import FakeClock
from tests.support.oidc_provider import AUDIENCE, Provider, running_provider
from tests.support.tls import Authority
from tests.support.waiting import until

from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.issuer import IssuerKeys, fetcher
from hearth.authorize.oidc import Oidc, OidcRules
from hearth.authorize.tokens import Tokens
from hearth.models.errors import IssuerUnavailable, Unauthenticated
from hearth.models.principal import ADMIN, Role
from hearth.server.call_gates import TokenGate
from hearth.server.call_io import CallExchange

OWN = "token-of-the-node-1234"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def provider(authority: Authority) -> Iterator[Provider]:
    with running_provider(authority) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@dataclasses.dataclass(frozen=True)
class Caller:
    """Someone who calls a route that asks for a token."""

    client: str = "192.0.2.1"


class Door:
    """The gate of a route, and callers."""

    def __init__(self, oidc: Oidc, clock: FakeClock) -> None:
        tokens = Authenticator(Tokens([(ADMIN, OWN)]), WrongTokens(clock), oidc=oidc)
        self.gate = TokenGate(tokens, "app")

    async def admit(self, token: str) -> None:
        async def no_body() -> bytes:
            return b""

        caller = cast(CallExchange, Caller())
        await self.gate.admit(caller, {"Authorization": [f"Bearer {token}"]}, no_body)


@pytest.fixture
async def door(provider: Provider, authority: Authority, clock: FakeClock) -> AsyncIterator[Door]:
    roles = {"deploy": Role.DEPLOYER}
    rules = OidcRules(issuer=provider.issuer, audience=AUDIENCE, role_claim="roles", roles=roles)
    async with IssuerKeys(provider.issuer, clock, fetcher(authority.client())) as keys:
        yield Door(Oidc(rules, keys, clock), clock)


def sign(provider: Provider, clock: FakeClock) -> str:
    now = clock.now_ms() // 1000
    return provider.sign(iat=now, exp=now + 3600)


async def test_a_key_that_the_provider_rotates_is_followed(door: Door, provider: Provider, clock: FakeClock) -> None:
    old = sign(provider, clock)
    await door.admit(old)
    provider.rotate("second", "RS256")
    new = sign(provider, clock)
    with pytest.raises(Unauthenticated):
        await door.admit(new)
    assert len(provider.fetched) == 2, "anybody may name any key"
    clock.advance(31)
    await door.admit(new)
    assert len(provider.fetched) == 4
    with pytest.raises(Unauthenticated):
        await door.admit(old)


async def test_a_provider_with_a_foreign_certificate_lets_nobody_in(provider: Provider, clock: FakeClock) -> None:
    async with IssuerKeys(provider.issuer, clock, fetcher()) as keys:
        with pytest.raises(IssuerUnavailable):
            await keys.check()
    assert provider.fetched == []


@pytest.mark.parametrize(
    "documents",
    [
        {"openid-configuration": 500},
        {"openid-configuration": 307},
        {"openid-configuration": "<html>"},
        {"openid-configuration": {"issuer": "https://other.example", "jwks_uri": "https://other.example/keys"}},
        {"keys": 404},
        {"keys": {"keys": []}},
        {"keys": "[" * 100_000},
        {"keys": " " * (2 << 20)},
    ],
)
async def test_a_provider_that_lies_fails_the_calls_with_its_tokens_and_no_others(
    door: Door, provider: Provider, clock: FakeClock, documents: dict[str, Any]
) -> None:
    provider.documents = documents
    with pytest.raises(IssuerUnavailable) as failed:
        await door.admit(sign(provider, clock))
    assert (failed.value.status, failed.value.message) == (503, "Tokens of the OIDC issuer cannot be checked now")
    await door.admit(OWN)
    provider.documents = {}
    clock.advance(6)
    await door.admit(sign(provider, clock))


async def test_a_slow_provider_holds_up_the_calls_with_its_tokens_and_no_others(
    door: Door, provider: Provider, clock: FakeClock
) -> None:
    provider.answers.clear()
    token = sign(provider, clock)
    waiting = [asyncio.create_task(door.admit(token)) for _ in range(3)]
    assert await asyncio.to_thread(until, lambda: len(provider.fetched) == 1)
    await door.admit(OWN)
    with pytest.raises(Unauthenticated):
        await door.admit("wrong")
    assert not any(task.done() for task in waiting)
    provider.answers.set()
    await asyncio.gather(*waiting)
    assert len(provider.fetched) == 2, "all waited for one request"
