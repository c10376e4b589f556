"""What it costs to check a caller, in microseconds of processor time for each call.

``python -m bench.callers``. Beside the check of a token or a signature stands what an open route does in its place.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from hearth.aio.clock import Clock, SystemClock
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.issuer import IssuerKeys
from hearth.authorize.oidc import Oidc, OidcRules
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import Tokens, digest, new_token
from hearth.models.call import HeaderMap
from hearth.models.call_auth import Signature
from hearth.models.principal import ADMIN, Role
from hearth.models.token import Token
from hearth.server.call_gates import SignatureGate, TokenGate
from hearth.server.call_io import CallExchange

_TIMES: Final = 100_000
_ROUNDS: Final = 5
_EXCHANGE: Final = cast(CallExchange, None)  # a valid proof asks nothing of it


async def _measure() -> None:
    clock, value, admin = SystemClock(), new_token(), new_token()
    made = dt.datetime.now(dt.UTC)
    token = Token(
        id="1", name="bench", role=Role.INVOKER, digest=digest(value.encode()), created_at=made, last_used_at=made
    )

    async def find(key: str) -> Token | None:
        return token if key == token.digest else None

    stored = StoredTokens(find, clock)
    oidc, signed = _issuer(clock)
    gate = TokenGate(Authenticator(Tokens([(ADMIN, admin)]), WrongTokens(clock), stored, oidc), "app")

    async def no_body() -> bytes:
        return b""

    def shows(shown: str) -> Callable[[], Awaitable[object]]:
        return lambda: gate.admit(_EXCHANGE, {"Authorization": [f"Bearer {shown}"]}, no_body)

    baseline = await _print("open route", _nothing)
    await _print("stored token", shows(value), baseline)
    await _print("the node's own token", shows(admin), baseline)
    await _print("an issuer's token, known", shows(signed), baseline)
    for size in (1 << 10, 64 << 10, 1 << 20):
        times = max(100, _TIMES * 64 // (64 + (size >> 5)))
        await _print(f"signature of {size >> 10} KiB", _signed(size, clock), baseline, times=times)
    await stored.close()


def _issuer(clock: Clock) -> tuple[Oidc, str]:
    """Return what knows the tokens of an issuer without a network, and one of them."""
    issuer, key = "https://issuer.example", ECKey.generate_key("P-256", {"kid": "1", "alg": "ES256", "use": "sig"})
    documents = {
        f"{issuer}/.well-known/openid-configuration": {"issuer": issuer, "jwks_uri": f"{issuer}/keys"},
        f"{issuer}/keys": KeySet([key]).as_dict(private=False),
    }

    async def fetch(url: str) -> bytes:
        return json.dumps(documents[url]).encode()

    rules = OidcRules(issuer=issuer, audience="hearth", role_claim="roles", roles={"callers": Role.INVOKER})
    now = clock.now_ms() // 1000
    claims = {"iss": issuer, "aud": "hearth", "sub": "bench", "iat": now, "exp": now + 3600, "roles": ["callers"]}
    token = jwt.encode({"alg": "ES256", "kid": "1"}, claims, key, algorithms=["ES256"])
    return Oidc(rules, IssuerKeys(issuer, clock, fetch), clock), token


def _signed(size: int, clock: Clock) -> Callable[[], Awaitable[object]]:
    """Return what checks a signed body."""
    body = b"x" * size
    headers: HeaderMap = {"X-Hub-Signature-256": [f"sha256={hmac.new(b'key', body, hashlib.sha256).hexdigest()}"]}
    gate = SignatureGate(Signature(style="github", secret="S"), "key", clock)  # the name of one

    async def read() -> bytes:
        return body

    return lambda: gate.admit(_EXCHANGE, headers, read)


async def _nothing() -> None:
    pass


async def _print(
    what: str, run: Callable[[], Awaitable[object]], baseline: float = 0.0, *, times: int = _TIMES
) -> float:
    """Print and return the least of some rounds, less the baseline: the machine may do other things beside."""
    least = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(times):
            await run()
        least = min(least, (time.process_time() - began) / times)
    print(f"{what:24} {max(0.0, least - baseline) * 1e6:8.2f} us", flush=True)
    return least


if __name__ == "__main__":
    asyncio.run(_measure())
