"""The sessions of browsers that use the dashboard.

A browser shows the id of its session in a cookie; the token behind it stays here. Sessions live in memory: they end
with the node, and another node does not know them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from typing import Final

from hearth.aio.clock import Clock

#: Seconds after which a session ends.
LIFE_S: Final = 12 * 3600
#: Sessions of one node. A further one ends the oldest.
MAX_SESSIONS: Final = 1000
#: Those of one token: who has one ends the sessions of nobody else.
MAX_OF_TOKEN: Final = 20
_ID_BYTES: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class _Session:
    token: bytes
    ends: float


class Sessions:
    """The sessions of one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(_ID_BYTES)
        self._sessions: dict[str, _Session] = {}

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)}>"

    def begin(self, token: bytes) -> str:
        """Begin a session for a token that was checked; return its id."""
        own = [key for key, session in self._sessions.items() if session.token == token]
        if len(own) >= MAX_OF_TOKEN:
            del self._sessions[own[0]]
        elif len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session_id = secrets.token_urlsafe(_ID_BYTES)
        self._sessions[session_id] = _Session(token, self._clock.monotonic() + LIFE_S)
        return session_id

    def token(self, session_id: str) -> bytes:
        """Return the token of a session; empty if the session does not exist or has ended."""
        session = self._sessions.get(session_id)
        if session is None:
            return b""
        if self._clock.monotonic() >= session.ends:
            del self._sessions[session_id]
            return b""
        return session.token

    def end(self, session_id: str) -> None:
        """End a session, if it exists."""
        self._sessions.pop(session_id, None)

    def page_key(self, session_id: str) -> str:
        """Return what pages of the dashboard show with each request, in this session or (empty id) without one.

        Only the dashboard's own page contains it, so another page that makes the browser send the cookie lacks it.
        """
        return hmac.new(self._secret, session_id.encode(), hashlib.sha256).hexdigest()

    def is_page_key(self, session_id: str, key: str) -> bool:
        """Return whether a key is that of a session. Takes the same time for every wrong key."""
        return hmac.compare_digest(self.page_key(session_id).encode(), key.encode())
