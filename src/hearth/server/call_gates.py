"""The gates of routes: what a caller must show before its call exists, found once for each definition.

No gate stands before an open route. A gate takes what proves the caller's right out of the headers where it could be
used again: functions are hostile, and a token opens more than one function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from hearth.access.cache import Definition
from hearth.aio.clock import Clock
from hearth.authorize.authenticator import Authenticator, bearer
from hearth.authorize.rules import Action, authorize
from hearth.authorize.signatures import read_claim
from hearth.models.app import App
from hearth.models.call import HeaderMap
from hearth.models.call_auth import OPEN, SIGNED, TOKEN, Signature
from hearth.models.errors import ApiError, AppsInvalidAuth, RoutesInvalidAuth, SignatureUnchecked, Unauthenticated
from hearth.models.fn import Fn
from hearth.server.call_io import CallExchange

_AUTHORIZATION: Final = "Authorization"

#: Returns the whole body of a request.
ReadBody = Callable[[], Awaitable[bytes]]


class Gate(Protocol):
    """Admits the calls of one route.

    Attributes:
        checks_body: It reads the whole body, which must fit into memory.
    """

    checks_body: bool

    async def admit(self, exchange: CallExchange, headers: HeaderMap, read_body: ReadBody) -> bytes | None:
        """Check a request; return its body if it was read for that.

        Args:
            exchange: The request.
            headers: Its headers, from which the proof is removed if it is worth something elsewhere.
            read_body: Reads the body.

        Raises:
            ApiError: The request shows no valid proof.
        """


class CallGates:
    """Finds the gate of a route.

    Args:
        tokens: Finds callers by their tokens.
        default: The proof that is asked for where neither the route nor its app says.
    """

    def __init__(self, tokens: Authenticator, clock: Clock, default: str = OPEN) -> None:
        self._tokens = tokens
        self._clock = clock
        self._default = default

    def of(self, definition: Definition) -> Gate | None:
        """Return the gate of a route; ``None`` if it is open.

        Raises:
            RoutesInvalidAuth: It asks for a proof that this release does not know.
        """
        route, app = definition.route, definition.app
        if route.auth == SIGNED and route.signature is not None:
            return SignatureGate(route.signature, definition.key, self._clock)
        return self._of(route.auth or app.auth, app, RoutesInvalidAuth)

    def of_fn(self, app: App, fn: Fn) -> Gate | None:
        """Return the gate of a fn and its triggers; ``None`` if it is open.

        Raises:
            FnInvalidAuth: The fn asks for a proof that this release does not know.
            AppsInvalidAuth: Its app does.
        """
        return self._of(fn.auth or app.auth, app, AppsInvalidAuth)

    def _of(self, auth: str, app: App, unknown: type[ApiError]) -> Gate | None:
        auth = auth or self._default
        if auth == OPEN:
            return None
        if auth == TOKEN:
            return TokenGate(self._tokens, app.name)
        raise unknown


class TokenGate:
    """Asks for a token whose principal may invoke the functions of an app."""

    checks_body = False

    def __init__(self, tokens: Authenticator, app_name: str) -> None:
        self._tokens = tokens
        self._app_name = app_name

    async def admit(self, exchange: CallExchange, headers: HeaderMap, read_body: ReadBody) -> None:
        """Check the token, and keep it from the function.

        Raises:
            Unauthenticated: There is no valid token.
            TooManyWrongTokens: There is none, and too many wrong ones came from this address.
            TokensUnavailable: Tokens cannot be checked now.
            Forbidden: The token does not give the right to call this function.
        """
        shown = headers.pop(_AUTHORIZATION, ())
        token = bearer(shown[0]) if len(shown) == 1 else b""
        if not token:
            raise Unauthenticated
        principal = await self._tokens.find(token)
        if principal is None:
            self._tokens.note_wrong(exchange.client)
            raise Unauthenticated
        authorize(principal, Action.INVOKE, self._app_name)


class SignatureGate:
    """Asks for a signature of the body."""

    checks_body = True

    def __init__(self, rule: Signature, key: str, clock: Clock) -> None:
        self._rule = rule
        self._key = key.encode()
        self._clock = clock

    async def admit(self, exchange: CallExchange, headers: HeaderMap, read_body: ReadBody) -> bytes:
        """Check the signature; return the body, of which the function has seen nothing until then.

        Raises:
            SignatureUnchecked: The key is not there.
            SignatureWrong: There is no valid signature.
        """
        if not self._key:
            raise SignatureUnchecked
        claim = read_claim(self._rule, headers, self._clock.now_ms() / 1000)
        body = await read_body()
        claim.check(self._key, body)
        return body
