"""Check stored tokens, and remember valid ones for a few seconds.

A token that a node has revoked is refused there immediately. Other nodes refuse it 5 s later at most, whether the
database answers or not: a check is trusted for 5 s from the moment at which the database was asked. Tokens that were
not checked in this time are refused while the database is away.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.authorize.tokens import digest, is_token
from hearth.models.errors import HearthError, StoreUnavailable, TokensUnavailable
from hearth.models.principal import Principal
from hearth.models.times import EPOCH, ZERO
from hearth.models.token import Token
from hearth.telemetry.logs import get_logger

#: Seconds for which a check is trusted, and after which a token in use is checked again ahead of time.
_TRUST_S: Final = 5.0
_REFRESH_S: Final = 2.5
#: Valid tokens that are remembered; the one that was checked longest ago is forgotten first.
REMEMBERED: Final = 10_000
_HOUR_MS: Final = 3_600_000
_MS: Final = dt.timedelta(milliseconds=1)

#: Returns the stored token of a digest.
Find = Callable[[str], Awaitable[Token | None]]
#: Stores when a token, by its id, was used.
NoteUse = Callable[[str, dt.datetime], Awaitable[None]]

_log = get_logger(__name__)


@dataclasses.dataclass(slots=True)
class _Checked:
    """A valid token.

    Attributes:
        until: Monotonic time until which the check is trusted.
        refresh_at: Monotonic time from which the next use starts another check; infinite while one runs.
        expires_ms: When the token expires, in milliseconds since the epoch.
        used_hour: The last hour, since the epoch, whose use was stored.
    """

    principal: Principal
    until: float
    refresh_at: float
    expires_ms: float
    used_hour: int


class StoredTokens:
    """The stored tokens, as a node checks them.

    Args:
        find: Finds a token in the store.
        note_use: Stores the hour in which a token was used, once for each hour; without it, nobody does.
    """

    def __init__(self, find: Find, clock: Clock, note_use: NoteUse | None = None) -> None:
        self._find = find
        self._clock = clock
        self._note_use = note_use
        self._checked: OrderedDict[str, _Checked] = OrderedDict()
        self._generation = 0
        self._background = Background()

    def __repr__(self) -> str:
        return f"<StoredTokens checked={len(self._checked)}>"

    def find_nowait(self, key: str) -> Principal | None:
        """Return the principal of a token that was checked less than 5 s ago, by its digest, without waiting."""
        one = self._checked.get(key)
        if one is None:
            return None
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        if now >= one.until or now_ms >= one.expires_ms:
            del self._checked[key]
            return None
        if now >= one.refresh_at:
            one.refresh_at = one.until
            self._background.run(self._refresh(key))
        if now_ms // _HOUR_MS > one.used_hour:
            self._use(one, now_ms)
        return one.principal

    async def find(self, token: bytes) -> Principal | None:
        """Return the principal of a token; ``None`` if it is unknown, revoked or expired.

        Raises:
            TokensUnavailable: The database does not answer, and the last check is too long ago.
        """
        key = digest(token)
        if (known := self.find_nowait(key)) is not None:
            return known
        if not is_token(token.decode("latin-1")):
            return None  # a text without a valid checksum costs the database nothing
        try:
            return await self._check(key)
        except StoreUnavailable as exc:
            _log.warning("token not checked", error=str(exc))
            raise TokensUnavailable from exc

    def forget(self, token_id: str) -> None:
        """Forget a token that was revoked, also one that is being checked."""
        self._generation += 1
        for key in [key for key, one in self._checked.items() if one.principal.token_id == token_id]:
            del self._checked[key]

    async def close(self) -> None:
        """Stop the checks and notes that still run."""
        await self._background.cancel()

    async def _check(self, key: str) -> Principal | None:
        asked_at, generation = self._clock.monotonic(), self._generation
        token = await self._find(key)
        now_ms = self._clock.now_ms()
        if token is None or token.has_expired(EPOCH + now_ms * _MS):
            self._checked.pop(key, None)
            return None
        one = _Checked(
            token.principal,
            until=asked_at + _TRUST_S,
            refresh_at=asked_at + _REFRESH_S,
            expires_ms=float("inf") if token.expires_at == ZERO else (token.expires_at - EPOCH) / _MS,
            used_hour=int((token.last_used_at - EPOCH) / _MS) // _HOUR_MS,
        )
        if now_ms // _HOUR_MS > one.used_hour:
            self._use(one, now_ms)
        if generation == self._generation:  # otherwise this may be the token that was revoked meanwhile
            self._checked[key] = one
            self._checked.move_to_end(key)
            if len(self._checked) > REMEMBERED:
                self._checked.popitem(last=False)
        return one.principal

    async def _refresh(self, key: str) -> None:
        try:
            await self._check(key)
        except HearthError as exc:
            _log.debug("token not checked ahead of time", error=str(exc))

    def _use(self, one: _Checked, now_ms: int) -> None:
        one.used_hour = now_ms // _HOUR_MS
        if self._note_use is not None:
            self._background.run(self._note(self._note_use, one.principal.token_id, one.used_hour))

    async def _note(self, note_use: NoteUse, token_id: str, hour: int) -> None:
        try:
            await note_use(token_id, EPOCH + hour * _HOUR_MS * _MS)
        except HearthError as exc:
            _log.debug("use of a token not stored", token_id=token_id, error=str(exc))
