"""The public keys of an OpenID Connect issuer: found by discovery, kept, and renewed when the issuer rotates them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.models.errors import IssuerUnavailable
from hearth.settings import is_loopback
from hearth.telemetry.logs import get_logger

if TYPE_CHECKING:
    from joserfc.jwk import Key, KeySet

#: Seconds after which keys are fetched again, while the old ones are used.
_FRESH_S: Final = 600.0
#: Seconds for which keys are used while the issuer cannot be reached: a key that it withdraws meanwhile stays valid.
STALE_S: Final = 6 * 3600.0
#: Seconds between two requests because of a key that is not known: anybody may name any key.
_UNKNOWN_KEY_S: Final = 30.0
#: Seconds between two tries while no key is known.
_RETRY_S: Final = 5.0
_LIMIT_S: Final = 5.0
_MAX_BYTES: Final = 1 << 20
#: The kinds of keys that are public. A symmetric key would let everybody sign who knows it.
_PUBLIC: Final = frozenset({"RSA", "EC", "OKP"})
#: Bytes of the modulus of an RSA key.
_MIN_RSA_BYTES: Final = 256

Fetch = Callable[[str], Awaitable[bytes]]

_log = get_logger(__name__)


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Keys(msgspec.Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """The keys of one issuer. An async context manager.

    Args:
        issuer: Its URL.
        fetch: Returns the body of a URL; raises ``OSError`` if it cannot be fetched.
    """

    def __init__(self, issuer: str, clock: Clock, fetch: Fetch) -> None:
        self._issuer = issuer
        self._clock = clock
        self._fetch = fetch
        self._keys: KeySet | None = None
        self._generation = 0
        self._found: dict[tuple[str | None, str], Key] = {}
        self._fetched_s = 0.0
        self._tried_s: float | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._background = Background()

    async def __aenter__(self) -> IssuerKeys:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._background.cancel()

    async def check(self) -> None:
        """Fetch the keys, unless they are known.

        Raises:
            IssuerUnavailable: They are not, and the issuer cannot be reached.
        """
        await self._ensure_keys()

    def generation(self) -> int:
        """Return a number that changes whenever keys are fetched; 0 if that must be done first.

        Keys that are no longer fresh are fetched again in the background.
        """
        age_s = self._clock.monotonic() - self._fetched_s
        if age_s > _FRESH_S:
            self._renew(age_s)
        return self._generation if self._keys is not None else 0

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key with this id; ``None`` if the issuer has none.

        Args:
            kid: As the header of a token names it. Without it, the issuer must have a single key.
            algorithm: The one that the token was signed with.

        Raises:
            IssuerUnavailable: The keys are not known, or too old, and the issuer cannot be reached.
        """
        await self._ensure_keys()
        if (found := self._known(kid, algorithm)) is not None:
            return found
        if kid is None or self._seconds_since_try() < _UNKNOWN_KEY_S:
            return None
        await self._refreshed()
        return self._known(kid, algorithm)

    def _known(self, kid: str | None, algorithm: str) -> Key | None:
        if (found := self._found.get((kid, algorithm))) is not None:  # the library compares all keys at each call
            return found
        from joserfc.errors import JoseError

        assert self._keys is not None
        try:
            found = self._keys.get_by_kid(kid, {"use": "sig", "alg": algorithm})
        except JoseError:
            return None
        self._found[kid, algorithm] = found
        return found

    async def _ensure_keys(self) -> None:
        if not self.generation():
            if self._seconds_since_try() < _RETRY_S and self._refresh is None:
                raise IssuerUnavailable
            await self._refreshed()

    def _renew(self, age_s: float) -> None:
        if age_s > STALE_S:
            self._keys = None
        elif self._seconds_since_try() >= _UNKNOWN_KEY_S:
            self._start_refresh()

    def _seconds_since_try(self) -> float:
        return float("inf") if self._tried_s is None else self._clock.monotonic() - self._tried_s

    async def _refreshed(self) -> None:
        """Fetch the keys, together with all others who wait for them.

        Raises:
            IssuerUnavailable: They cannot be fetched.
        """
        task = self._start_refresh()
        await asyncio.wait([task])  # a request that is cancelled ends its own wait only
        if (failure := task.exception()) is not None:
            raise IssuerUnavailable from failure

    def _start_refresh(self) -> asyncio.Task[None]:
        if self._refresh is None:
            self._tried_s = self._clock.monotonic()
            self._refresh = self._background.start(self._load())
        return self._refresh

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(_LIMIT_S):
                self._keys = await self._fetch_keys()
            self._generation += 1
            self._found = {}
            self._fetched_s = self._clock.monotonic()
        except (OSError, ValueError, RecursionError) as exc:  # TimeoutError is an OSError
            _log.error("keys of the OIDC issuer cannot be fetched", issuer=self._issuer, error=str(exc) or repr(exc))
            raise
        finally:
            self._refresh = None

    async def _fetch_keys(self) -> KeySet:
        """Return the keys that the issuer publishes now.

        Raises:
            OSError: They cannot be fetched.
            ValueError: The answer is not that of an issuer of this name.
        """
        where = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        found = msgspec.json.decode(await self._fetch(where), type=_Discovery)
        if found.issuer != self._issuer:
            raise ValueError(f"{where} is of another issuer: {found.issuer[:200]!r}")
        if not is_secure_url(found.jwks_uri):
            raise ValueError(f"{where}: jwks_uri must be https://")
        return _key_set(msgspec.json.decode(await self._fetch(found.jwks_uri), type=_Keys).keys)


def is_secure_url(url: str) -> bool:
    """Return whether what is fetched from a URL cannot be changed on its way."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _key_set(published: list[dict[str, Any]]) -> KeySet:
    """Return the public keys for signatures.

    Raises:
        ValueError: There are none.
    """
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry, KeySet

    keys = []
    for one in published:
        if one.get("kty") not in _PUBLIC or one.get("use", "sig") != "sig" or _is_weak(one):
            continue
        try:
            keys.append(JWKRegistry.import_key(one))
        except (JoseError, ValueError, TypeError):  # of a form that this library does not know
            continue
    if not keys:
        raise ValueError("the issuer publishes no public key for signatures")
    return KeySet(keys)


def _is_weak(key: dict[str, Any]) -> bool:
    return key["kty"] == "RSA" and len(str(key.get("n", ""))) * 3 // 4 < _MIN_RSA_BYTES


def fetcher(tls: ssl.SSLContext | None = None) -> Fetch:
    """Return what fetches the documents of an issuer over HTTP.

    Args:
        tls: Authorities to trust; ``None`` for those of the system.
    """

    async def fetch(url: str) -> bytes:
        import aiohttp  # takes time and memory, for nodes with an issuer only

        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)
        try:
            async with session, session.get(url, allow_redirects=False, ssl=tls or True) as answer:
                if answer.status != 200:
                    raise OSError(f"{url}: status {answer.status}")
                body = bytearray()
                async for piece in answer.content.iter_chunked(65536):
                    body += piece
                    if len(body) > _MAX_BYTES:
                        raise OSError(f"{url}: longer than {_MAX_BYTES} bytes")
                return bytes(body)
        except aiohttp.ClientError as exc:
            raise OSError(f"{url}: {exc}") from exc

    return fetch
