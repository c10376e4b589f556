"""The store of tokens as the rest of Hearth uses it."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt

from hearth.models.token import Token


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Which tokens to list, oldest (smallest id) first. ``per_page`` 0 means no limit; ``cursor`` is exclusive."""

    cursor: str = ""
    per_page: int = 0


class TokenStore(abc.ABC):
    """Tokens, by id and by the digest of their value.

    Every operation is atomic. Reads see every write that was answered before. A failure of the backend is a
    :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def insert_token(self, token: Token) -> None:
        """Store a new token. Its id and its digest are unique."""

    @abc.abstractmethod
    async def find_token(self, digest: str) -> Token | None:
        """Return the token of a digest, whether it has expired or not."""

    @abc.abstractmethod
    async def get_token(self, token_id: str) -> Token:
        """Return a token. Raises ``TokensNotFound``."""

    @abc.abstractmethod
    async def get_tokens(self, which: TokenFilter) -> list[Token]:
        """Return tokens by id."""

    @abc.abstractmethod
    async def remove_token(self, token_id: str) -> None:
        """Delete a token. Raises ``TokensNotFound``."""

    @abc.abstractmethod
    async def note_token_use(self, token_id: str, at: dt.datetime) -> None:
        """Store when a token was used, unless a later time is stored; no effect on a deleted token."""
