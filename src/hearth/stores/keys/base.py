"""The store of idempotency keys as the rest of Hearth uses it."""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Sequence

from hearth.models.idempotency import Claim, KeyEnd, StoredKey


class KeyStore(abc.ABC):
    """Idempotency keys, each with the answer to its first request.

    Every operation is atomic. A failure of the backend is a :class:`~hearth.models.errors.StoreUnavailable` with the
    cause chained.
    """

    @abc.abstractmethod
    async def claim_key(self, claim: Claim, now: dt.datetime) -> StoredKey:
        """Hold a key that nobody has, or return it as it is stored.

        Of claims at the same time one holds the key. A claim that is made again still holds it. A key whose answer has
        expired is free. If its node has not renewed a claim in time, a running request is interrupted; one that was
        being accepted is held by the next claim for the same request, which makes the same call.
        """

    @abc.abstractmethod
    async def renew_keys(self, held: Sequence[tuple[str, str]], now: dt.datetime) -> None:
        """Hold keys for longer, each given with the call of its claim. No effect on keys that are no longer held."""

    @abc.abstractmethod
    async def end_key(self, end: KeyEnd, now: dt.datetime) -> bool:
        """Store the end of the request that holds a key; false if it does not hold it any more."""

    @abc.abstractmethod
    async def key_bytes(self, app_name: str, most: int) -> int:
        """Return the bytes of the stored answers of an app's keys; at least ``most`` if there are more."""

    @abc.abstractmethod
    async def remove_keys(self, now: dt.datetime, most: int) -> int:
        """Remove some of the keys that have expired; return how many."""
