"""The proof that a registry asks for: a name with a password, or a token from the address that it names.

Both follow the answer 401 with a ``WWW-Authenticate`` header (distribution specification; Docker's token protocol).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from hearth.images.registry.credentials import Auth

_FIELD: Final = re.compile(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"')
#: The longest answer with a token, in bytes.
_MAX_ANSWER: Final = 1 << 20
_CLIENT: Final = "hearth"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Prover:
    """Proves to one registry that its repository may be used.

    Args:
        session: For the requests for tokens.
        scope: ``repository:PATH:ACTIONS``.
        auth: The credentials; ``None``: those of everybody.
        is_plain: The registry speaks HTTP without TLS, so its tokens may come that way, too.
    """

    def __init__(self, session: aiohttp.ClientSession, scope: str, auth: Auth | None, *, is_plain: bool) -> None:
        self._session = session
        self._scope = scope
        self._auth = auth
        self._is_plain = is_plain
        self._header = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request, as far as it is known what they have to be."""
        return {"Authorization": self._header} if self._header else {}

    async def meet(self, challenges: Iterable[str]) -> bool:
        """Find a proof for an answer 401; return whether another try makes sense.

        Raises:
            aiohttp.ClientError: The address for tokens does not answer.
        """
        before, self._header = self._header, ""
        for challenge in challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            fields = dict(_FIELD.findall(rest))
            if scheme.lower() == "bearer" and (token := await self._token(fields)):
                self._header = f"Bearer {token}"
                return self._header != before
            if scheme.lower() == "basic" and self._auth is not None and not self._auth.identity_token:
                self._header = _basic(self._auth)
                return self._header != before
        return False

    async def _token(self, fields: dict[str, str]) -> str:
        realm = fields.get("realm", "")
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self._is_plain):
            return ""
        query = {"scope": fields.get("scope") or self._scope}
        if service := fields.get("service"):
            query["service"] = service
        if self._auth is not None and self._auth.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": self._auth.identity_token, "client_id": _CLIENT}
            asked = self._session.post(realm, data=query | form, allow_redirects=False)
        else:
            headers = {} if self._auth is None else {"Authorization": _basic(self._auth)}
            asked = self._session.get(realm, params=query, headers=headers)
        async with asked as answer:
            if answer.status != 200:
                return ""
            data = await answer.content.read(_MAX_ANSWER)
        try:
            found = msgspec.json.decode(data, type=_Token)
        except (ValueError, RecursionError):
            return ""
        return found.token or found.access_token


def _basic(auth: Auth) -> str:
    return f"Basic {base64.b64encode(f'{auth.username}:{auth.password}'.encode()).decode()}"
