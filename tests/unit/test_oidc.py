"""Tokens of an OpenID Connect issuer: which are valid, what they give, and how its keys are kept."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jws, jwt
from joserfc.jwk import Key, KeySet, OctKey, RSAKey
from tests.support.clock import FakeClock
from tests.support.oidc_provider import AUDIENCE, Provider, new_key
from tests.support.turns import LIMIT_S, limit_s

from hearth import settings
from hearth.authorize.issuer import STALE_S, IssuerKeys, is_secure_url
from hearth.authorize.oidc import Oidc
from hearth.authorize.tokens import digest
from hearth.models.errors import IssuerUnavailable, StartUpError
from hearth.models.principal import Principal, Role
from hearth.nodes.oidc import oidc_rules

ISSUER = "https://issuer.example/realm"
ROLES = "operators=admin,deploy=deployer,watch=viewer"


class Issuer(Provider):
    """An issuer without a network.

    Attributes:
        is_away: It answers nothing.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(ISSUER)
        self.clock = clock
        self.is_away = False

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = self.clock.now_ms() // 1000
        return super().claims(**{"iat": now, "exp": now + 300, **changes})

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        await asyncio.sleep(0)
        if self.is_away:
            raise OSError("no route to host")
        name = url.rpartition("/")[2]
        found: Any = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        if name == "keys":
            found = KeySet(self.keys).as_dict(private=False)
        answer = self.documents.get(name, found)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuer(clock: FakeClock) -> Issuer:
    return Issuer(clock)


@pytest.fixture
async def oidc(issuer: Issuer, clock: FakeClock) -> AsyncIterator[Oidc]:
    async with IssuerKeys(ISSUER, clock, issuer.fetch) as keys:
        yield Oidc(rules(), keys, clock)


def rules(**changes: str) -> Any:
    given = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_roles": ROLES, **changes}
    return oidc_rules(settings.load(**given))


async def found(oidc: Oidc, token: str) -> Principal | None:
    """Ask as the node does: first for a token that was verified before."""
    known = oidc.find_nowait(digest(token.encode()))
    return known if known is not None else await oidc.find(token.encode())


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384"])
async def test_a_token_of_the_issuer_is_known_by_its_subject(oidc: Oidc, issuer: Issuer, algorithm: str) -> None:
    issuer.rotate("key", algorithm)
    assert await found(oidc, issuer.sign()) == Principal(Role.DEPLOYER, name="ci", realm="oidc")
    assert await found(oidc, issuer.sign(aud=["other", AUDIENCE])) == Principal(Role.DEPLOYER, name="ci", realm="oidc")
    assert await found(oidc, issuer.sign(header={"kid": None})) is not None, "it has a single key"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://issuer.example"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": {AUDIENCE: 1}},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 256},
        {"sub": 1},
        {"roles": None},
        {"roles": []},
        {"roles": "none"},
        {"roles": ["none", 1, None]},
        {"roles": {"deploy": 1}},
    ],
)
async def test_a_token_with_other_claims_is_not_valid(oidc: Oidc, issuer: Issuer, changes: dict[str, Any]) -> None:
    assert await found(oidc, issuer.sign(**changes)) is None
    assert await found(oidc, issuer.sign()) is not None


@pytest.mark.parametrize(
    ("claim", "seconds", "is_valid"),
    [
        ("exp", -59, True),
        ("exp", -60, False),
        ("nbf", 60, True),
        ("nbf", 61, False),
        ("iat", 60, True),
        ("iat", 61, False),
    ],
)
async def test_clocks_may_differ_by_a_minute(
    oidc: Oidc, issuer: Issuer, clock: FakeClock, claim: str, seconds: int, is_valid: bool
) -> None:
    changed: dict[str, Any] = {claim: clock.now_ms() // 1000 + seconds}
    token = issuer.sign(**changed)
    assert (await found(oidc, token) is not None) is is_valid


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signatures were verified."""
    seen: list[str] = []
    decode = jwt.decode

    def noted(token: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", noted)
    return seen


async def test_a_signature_is_verified_once(oidc: Oidc, issuer: Issuer, verified: list[str]) -> None:
    tokens = [issuer.sign(), issuer.sign(sub="other")]
    for _ in range(3):
        assert [one and one.name for one in [await found(oidc, token) for token in tokens]] == ["ci", "other"]
    assert len(verified) == 2
    for _ in range(2):
        assert await found(oidc, tokens[0] + "x") is None
    assert len(verified) == 4, "only valid tokens are remembered"


async def test_a_verified_token_expires_and_goes_with_its_key(
    oidc: Oidc, issuer: Issuer, clock: FakeClock, verified: list[str]
) -> None:
    token = issuer.sign()
    assert await found(oidc, token) is not None
    clock.advance(360)
    assert await found(oidc, token) is not None
    clock.advance(1)
    assert await found(oidc, token) is None
    lasting = issuer.sign(exp=clock.now_ms() // 1000 + 10 * STALE_S)
    assert await found(oidc, lasting) is not None
    issuer.rotate("new")
    clock.advance(STALE_S + 1)
    for _ in range(2):
        assert await found(oidc, lasting) is None


async def test_a_verified_token_is_verified_again_when_the_keys_were_fetched(
    oidc: Oidc, issuer: Issuer, clock: FakeClock, verified: list[str]
) -> None:
    token = issuer.sign(exp=clock.now_ms() // 1000 + 3600)
    assert await found(oidc, token) is not None
    issuer.rotate("new")
    clock.advance(601)
    assert await found(oidc, token) is not None, "known keys are used until the new ones are there"
    assert len(verified) == 1
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(issuer.fetched) == 4
    assert await found(oidc, token) is None


async def test_a_verified_token_is_not_valid_before_its_time_when_the_clock_is_set_back(
    oidc: Oidc, issuer: Issuer, clock: FakeClock
) -> None:
    token = issuer.sign(nbf=clock.now_ms() // 1000, iat=None)
    assert await found(oidc, token) is not None
    clock.set_wall(-61)
    assert await found(oidc, token) is None
    clock.set_wall(61)
    assert await found(oidc, token) is not None
    clock.set_wall(361)
    assert await found(oidc, token) is None


async def test_a_token_is_not_remembered_whose_keys_grow_old_while_it_is_verified(
    oidc: Oidc, issuer: Issuer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would tell its number from that of no keys."""
    token, decode = issuer.sign(exp=clock.now_ms() // 1000 + 10 * STALE_S).encode(), jwt.decode

    def slowly(*args: Any, **named: Any) -> Any:
        issuer.is_away = True
        clock.advance(STALE_S + 1)
        return decode(*args, **named)

    monkeypatch.setattr(jwt, "decode", slowly)
    await oidc.find(token)
    assert oidc.find_nowait(digest(token)) is None


async def test_signed_tokens_that_give_nothing_push_no_valid_one_out(
    oidc: Oidc, issuer: Issuer, verified: list[str]
) -> None:
    token = issuer.sign()
    assert await found(oidc, token) is not None
    for number in range(1000):
        assert await found(oidc, issuer.sign(roles=[], sub=f"s{number}")) is None
    assert await found(oidc, token) is not None
    assert len(verified) == 1001, "the valid one was not verified again"


async def test_no_token_is_kept_only_its_digest(oidc: Oidc, issuer: Issuer) -> None:
    token = issuer.sign()
    assert await found(oidc, token) is not None
    kept = repr(vars(oidc))
    assert digest(token.encode()) in kept
    assert not any(part in kept for part in token.split("."))


async def test_the_newest_thousand_tokens_are_remembered(oidc: Oidc, issuer: Issuer, verified: list[str]) -> None:
    tokens = [issuer.sign(sub=f"s{number}") for number in range(1001)]
    for token in tokens:
        assert await found(oidc, token) is not None
    await found(oidc, tokens[-1])
    assert len(verified) == 1001
    await found(oidc, tokens[0])
    assert len(verified) == 1002


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_forged_tokens_cost_a_fraction_of_a_processor_at_a_thousand_a_second(
    oidc: Oidc, issuer: Issuer, verified: list[str], algorithm: str
) -> None:
    """Each names a key of the issuer, so its signature is verified. Claims of others may be as long as is allowed."""
    issuer.rotate("known", algorithm)
    valid = issuer.sign()
    assert await found(oidc, valid) is not None
    head, claims, signature = issuer.sign(filling="x" * 11_000).split(".")
    forged = [f"{head}.{claims}.{encoded(number)}{signature[len(encoded(number)) :]}" for number in range(1000)]
    asked, begun_s = len(issuer.fetched), time.process_time()
    for token in forged:
        assert await found(oidc, token) is None
    cost_s = (time.process_time() - begun_s) / len(forged)
    assert len(verified) == 1 + len(forged)
    assert cost_s < 0.0005 * limit_s() / LIMIT_S
    assert len(issuer.fetched) == asked, "the issuer is not asked for keys that are known"
    assert await found(oidc, valid) is not None
    assert verified[0] not in verified[1:], "they push no valid token out of what is remembered"


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"])
async def test_tokens_of_these_kinds_are_credentials(oidc: Oidc, issuer: Issuer, kind: str) -> None:
    assert await found(oidc, issuer.sign(header={"typ": kind})) is not None


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "jwtx"])
async def test_tokens_of_other_kinds_are_no_credentials(oidc: Oidc, issuer: Issuer, kind: str) -> None:
    assert await found(oidc, issuer.sign(header={"typ": kind})) is None


async def test_a_token_without_a_signature_is_not_valid(oidc: Oidc, issuer: Issuer) -> None:
    for algorithm in ("none", "None", "NONE", "", None):
        header = encoded({"alg": algorithm, "kid": "first", "typ": "JWT"})
        for signature in ("", "AA"):
            assert await found(oidc, f"{header}.{encoded(issuer.claims())}.{signature}") is None
    signed = issuer.sign()
    assert await found(oidc, signed.rpartition(".")[0] + ".") is None
    assert await found(oidc, signed) is not None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_public_key_is_no_secret(oidc: Oidc, issuer: Issuer, algorithm: str) -> None:
    issuer.rotate("key", "RS256")
    public = cast(RSAKey, issuer.keys[0])
    forms = [public.as_pem(private=False), public.as_pem(private=False).strip(), json.dumps(public.as_dict()).encode()]
    for secret in forms:
        header, payload = encoded({"alg": algorithm, "kid": "key"}), encoded(issuer.claims())
        made = hmac.new(secret, f"{header}.{payload}".encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
        token = f"{header}.{payload}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"
        assert await found(oidc, token) is None


async def test_another_key_with_the_same_id_does_not_sign_for_the_issuer(oidc: Oidc, issuer: Issuer) -> None:
    assert await found(oidc, issuer.sign(new_key("first"))) is None
    assert await found(oidc, issuer.sign(new_key("first", "RS256"))) is None
    thief = new_key("first")
    with_key = issuer.sign(thief, {"jwk": thief.as_dict(private=False)})
    assert await found(oidc, with_key) is None
    assert await found(oidc, issuer.sign(thief, {"jku": "https://evil.example/keys"})) is None
    assert issuer.fetched.count("https://evil.example/keys") == 0


async def test_a_changed_token_is_not_valid(oidc: Oidc, issuer: Issuer) -> None:
    header, payload, signature = issuer.sign().split(".")
    other = encoded(issuer.claims(roles=["operators"]))
    assert await found(oidc, f"{header}.{other}.{signature}") is None
    assert await found(oidc, f"{encoded({'alg': 'ES256', 'kid': 'first', 'x': 1})}.{payload}.{signature}") is None
    assert (
        await found(oidc, f"{encoded({'alg': 'ES256', 'kid': 'first', 'crit': ['x'], 'x': 1})}.{payload}.{signature}")
        is None
    )


@pytest.mark.parametrize(
    ("header", "is_valid"),
    [({}, True), ({"x": 1}, False), ({"crit": ["exp2"], "exp2": 1}, False), ({"b64": False, "crit": ["b64"]}, False)],
)
async def test_a_header_that_is_not_understood_is_not_valid(
    oidc: Oidc, issuer: Issuer, header: dict[str, Any], is_valid: bool
) -> None:
    issuer.rotate("key", "RS256")
    private = cast(Any, issuer.keys[0].private_key)
    signed = f"{encoded({'alg': 'RS256', 'kid': 'key', **header})}.{encoded(issuer.claims())}"
    made = private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    token = f"{signed}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"
    assert (await found(oidc, token) is not None) is is_valid


@pytest.mark.parametrize(
    "token",
    [
        *("", "a", "a.b", "a.b.c", "..", "a.b.c.d", "a.b.c.d.e", "e30.e30.e30", "é.b.c", "x" * 20_000),
        *("W10.W10.AA", "WyJhbGciXQ.e30.AA"),  # the header is a list
    ],
)
async def test_what_is_no_token_asks_nobody(oidc: Oidc, issuer: Issuer, token: str) -> None:
    assert await oidc.find(token.encode("latin-1")) is None
    assert issuer.fetched == []


@pytest.mark.parametrize(
    "payload", [b"[" * 9000, b'{"sub":' * 1500, b"[]", b"null", b"x", b"", b'{"exp":' + b"9" * 9000 + b"}"]
)
async def test_what_is_signed_but_no_claims_is_not_valid(oidc: Oidc, issuer: Issuer, payload: bytes) -> None:
    key = issuer.keys[0]
    token = jws.serialize_compact({"alg": key.get("alg"), "kid": key.kid}, payload, key, algorithms=["ES256"])
    assert await found(oidc, token) is None


# -- roles and apps ---------------------------------------------------------------------------------------------------


def test_the_first_value_of_the_settings_decides() -> None:
    claims = {"sub": "me", "roles": ["watch", "deploy", "operators"]}
    assert rules().principal(claims) == Principal(Role.ADMIN, name="me", realm="oidc")
    viewer = Principal(Role.VIEWER, name="me", realm="oidc")
    assert rules(oidc_roles="watch=viewer,operators=admin").principal(claims) == viewer


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("groups", {"groups": "deploy"}),
        ("realm_access.roles", {"realm_access": {"roles": ["deploy"]}}),
        ("https://example.com/roles", {"https://example.com/roles": ["deploy"]}),
    ],
)
def test_the_claim_of_the_roles_may_be_anywhere(name: str, claims: dict[str, Any]) -> None:
    chosen = rules(oidc_role_claim=name)
    assert chosen.principal({"sub": "me", **claims}) == Principal(Role.DEPLOYER, name="me", realm="oidc")
    assert chosen.principal({"sub": "me", "roles": ["deploy"], "realm_access": "deploy"}) is None


@pytest.mark.parametrize(
    ("apps", "reached"),
    [
        (["a", "b"], {"a", "b"}),
        ("a", {"a"}),
        ("*", set()),
        (["*", "a"], set()),
        ([], None),
        ("", None),
        (None, None),
        ({}, None),
        ([1], None),
    ],
)
def test_a_claim_restricts_a_token_to_apps(apps: object, reached: set[str] | None) -> None:
    """An empty set means all apps, so no token may get one by accident."""
    principal = rules(oidc_apps_claim="apps").principal({"sub": "me", "roles": "deploy", "apps": apps})
    expected = Principal(Role.DEPLOYER, frozenset(reached or ()), name="me", realm="oidc")
    assert principal == (None if reached is None else expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"oidc_issuer": "http://issuer.example"}, "FN_OIDC_ISSUER=http://issuer.example: must begin with https://"),
        ({"oidc_issuer": "issuer.example"}, "FN_OIDC_ISSUER"),
        ({"oidc_audience": ""}, "FN_OIDC_AUDIENCE: missing"),
        ({"oidc_roles": ""}, "FN_OIDC_ROLES: missing"),
        ({"oidc_roles": "a=root"}, "FN_OIDC_ROLES: 'a=root' is not VALUE=ROLE"),
        ({"oidc_roles": "a=runner"}, "FN_OIDC_ROLES: 'a=runner'"),
        ({"oidc_roles": "a=local"}, "FN_OIDC_ROLES: 'a=local'"),
        ({"oidc_roles": "admin"}, "FN_OIDC_ROLES: 'admin'"),
        ({"oidc_roles": "=admin"}, "FN_OIDC_ROLES: '=admin'"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, str], said: str) -> None:
    with pytest.raises(StartUpError) as refused:
        rules(**changes)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("url", "is_secure"),
    [
        ("https://a.example", True),
        ("http://127.0.0.1:1/x", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("http://[", False),
    ],
)
def test_documents_come_over_tls_or_from_this_machine(url: str, is_secure: bool) -> None:
    assert is_secure_url(url) is is_secure


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_keys_are_fetched_once_for_all_who_wait(oidc: Oidc, issuer: Issuer) -> None:
    assert issuer.fetched == [], "a node starts without its issuer"
    token = issuer.sign()
    assert None not in await asyncio.gather(*[found(oidc, token) for _ in range(20)])
    assert await found(oidc, token) is not None
    assert issuer.fetched == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"]


async def test_one_who_gives_up_does_not_end_the_wait_of_the_others(oidc: Oidc, issuer: Issuer) -> None:
    first = asyncio.ensure_future(found(oidc, issuer.sign()))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(found(oidc, issuer.sign()))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None


async def test_a_new_key_is_fetched_when_a_token_names_it(oidc: Oidc, issuer: Issuer, clock: FakeClock) -> None:
    old = issuer.sign()
    assert await found(oidc, old) is not None
    issuer.rotate("second")
    clock.advance(30)
    assert await found(oidc, issuer.sign()) is not None
    assert await found(oidc, old) is None, "its key was withdrawn"


async def test_unknown_keys_cost_the_issuer_one_request_in_half_a_minute(
    oidc: Oidc, issuer: Issuer, clock: FakeClock
) -> None:
    assert await found(oidc, issuer.sign()) is not None
    for _ in range(5):
        clock.advance(30)
        before = len(issuer.fetched)
        for number in range(20):
            assert await found(oidc, issuer.sign(header={"kid": f"guess-{number}"})) is None
        assert len(issuer.fetched) - before == 2, "discovery and keys"


async def test_known_keys_are_used_while_they_are_fetched_again(oidc: Oidc, issuer: Issuer, clock: FakeClock) -> None:
    assert await found(oidc, issuer.sign()) is not None
    issuer.keys.insert(0, new_key("next"))
    clock.advance(601)
    assert await found(oidc, issuer.sign()) is not None
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(issuer.fetched) == 4
    assert await found(oidc, issuer.sign(issuer.keys[0])) is not None
    assert len(issuer.fetched) == 4


async def test_an_issuer_that_is_away_is_borne_for_hours_and_then_nobody_gets_in(
    oidc: Oidc, issuer: Issuer, clock: FakeClock
) -> None:
    assert await found(oidc, issuer.sign()) is not None
    issuer.is_away = True
    for _ in range(int(STALE_S // 600)):
        clock.advance(600)
        assert await found(oidc, issuer.sign()) is not None
        for _ in range(10):
            await asyncio.sleep(0)
    clock.advance(1)
    with pytest.raises(IssuerUnavailable):
        await found(oidc, issuer.sign())
    before = len(issuer.fetched)
    with pytest.raises(IssuerUnavailable):
        await found(oidc, issuer.sign())
    assert len(issuer.fetched) == before, "it is not asked by every request"
    issuer.is_away = False
    clock.advance(5)
    assert await found(oidc, issuer.sign()) is not None


async def test_an_unknown_key_of_an_issuer_that_is_away_is_no_wrong_token(
    oidc: Oidc, issuer: Issuer, clock: FakeClock
) -> None:
    assert await found(oidc, issuer.sign()) is not None
    issuer.is_away = True
    issuer.rotate("second")
    clock.advance(30)
    with pytest.raises(IssuerUnavailable):
        await found(oidc, issuer.sign())


@pytest.mark.parametrize(
    "documents",
    [
        {"openid-configuration": {"issuer": "https://evil.example", "jwks_uri": f"{ISSUER}/keys"}},
        {"openid-configuration": {"issuer": f"{ISSUER}/", "jwks_uri": f"{ISSUER}/keys"}},
        {"openid-configuration": {"issuer": ISSUER, "jwks_uri": "http://issuer.example/keys"}},
        {"openid-configuration": {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}},
        {"openid-configuration": {"issuer": ISSUER}},
        {"openid-configuration": []},
        {"openid-configuration": b'{"x":' * 20_000},
        {"keys": b'{"keys": [{"kty": ' + b"[" * 20_000},
        {"keys": b'{"keys": [{"kty": "\xff"}]}'},
        {"keys": {"keys": []}},
        {"keys": {}},
        {"keys": {"keys": [1]}},
        {"keys": {"keys": [{"kty": "oct", "k": "AAAA", "kid": "first"}]}},
        {"keys": {"keys": [{"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA", "kid": "first"}]}},
        {"keys": {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "first"}]}},
    ],
)
async def test_documents_that_are_not_those_of_the_issuer_let_nobody_in(
    oidc: Oidc, issuer: Issuer, documents: dict[str, Any]
) -> None:
    issuer.documents = documents
    with pytest.raises(IssuerUnavailable):
        await found(oidc, issuer.sign())


async def test_keys_that_cannot_be_used_do_not_hide_those_that_can(oidc: Oidc, issuer: Issuer) -> None:
    published: Any = KeySet(issuer.keys).as_dict(private=False)
    secret = OctKey.generate_key(256, {"kid": "secret"}).as_dict(private=True)
    encrypting = RSAKey.generate_key(2048, {"kid": "first", "use": "enc"}).as_dict(private=False)
    unknown = {"kty": "PQC", "kid": "first"}
    issuer.documents = {"keys": {"keys": [unknown, secret, encrypting, *published["keys"]]}}
    assert await found(oidc, issuer.sign()) is not None


async def test_a_key_signs_with_its_own_algorithm_only(oidc: Oidc, issuer: Issuer) -> None:
    issuer.rotate("key", "RS256")
    key: Key = issuer.keys[0]
    assert await found(oidc, issuer.sign()) is not None
    assert await found(oidc, issuer.sign(key, {"alg": "RS256"})) is not None
    free = RSAKey.import_key({**key.as_dict(private=True), "alg": "PS256"})
    assert await found(oidc, issuer.sign(free, {"alg": "PS256"})) is None


@pytest.mark.parametrize("name", ["ci", "oidc:ci", "@oidc:ci", "deployer@oidc:ci"])
def test_no_subject_is_taken_for_a_token_of_the_same_name(name: str) -> None:
    """The audit log names both."""
    subject = rules().principal({"sub": "ci", "groups": ["operators"], "roles": ["operators"]})
    assert subject is not None
    assert str(subject) == "admin@oidc:ci"
    assert str(Principal(Role.ADMIN, token_id="1", name=name)) == f"admin:{name}" != str(subject)
