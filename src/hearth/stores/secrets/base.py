"""The store of encrypted secrets as the rest of Hearth uses it. It never sees a value."""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Callable, Sequence

from hearth.models.secret import Secret

#: Returns a secret with its key id and its encrypted value. Called within a transaction, perhaps more than once.
Seal = Callable[[Secret], Secret]


class SecretStore(abc.ABC):
    """Secrets of apps. They are deleted with their app.

    Every operation is atomic. A failure of the backend is a :class:`~hearth.models.errors.StoreUnavailable`.
    """

    @abc.abstractmethod
    async def put_secret(self, app_name: str, name: str, now: dt.datetime, seal: Seal) -> Secret:
        """Store a new secret with version 1, or the next version of an existing one; return what is stored.

        Raises ``AppsNotFound``, ``SecretsTooMany``, and what ``seal`` raises (then nothing is stored).
        """

    @abc.abstractmethod
    async def list_secrets(self, app_name: str) -> list[Secret]:
        """Return an app's secrets by name, without their encrypted values. Raises ``AppsNotFound``."""

    @abc.abstractmethod
    async def find_secrets(self, app_name: str, app_id: str, names: Sequence[str]) -> list[Secret]:
        """Return those of the named secrets that exist and belong to the app of this id, in any order."""

    @abc.abstractmethod
    async def remove_secret(self, app_name: str, name: str) -> None:
        """Delete a secret. Raises ``AppsNotFound``, ``SecretsNotFound``."""

    @abc.abstractmethod
    async def secret_keys(self) -> dict[str, int]:
        """Return the ids of the keys that stored secrets were encrypted with, each with the number of its secrets."""

    @abc.abstractmethod
    async def secrets_of_key(self, key_id: str, after: tuple[str, str], most: int) -> list[Secret]:
        """Return secrets that were encrypted with a key, by app and name, from behind ``after`` on."""

    @abc.abstractmethod
    async def reseal_secret(self, before: Secret, after: Secret) -> bool:
        """Store the same value under another key; false if the secret was changed or deleted meanwhile."""
