"""Secrets with their values: what the store keeps encrypted, and the keys that it does not have."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Final

from hearth.models.errors import SecretGone, SecretsKeyUnusable, SecretUnreadable, StartUpError
from hearth.models.secret import NO_SECRETS, Secret, SecretValues, version_of
from hearth.stores.secrets.base import SecretStore
from hearth.stores.secrets.keyring import Keyring, KeyUnusable
from hearth.stores.secrets.sealing import Key, Undecryptable
from hearth.telemetry import redaction
from hearth.telemetry.logs import get_logger

#: Secrets that a rotation reads at once.
_AT_ONCE: Final = 20

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Rotated:
    """The result of a rotation.

    Attributes:
        key_id: The key that encrypts from now on.
        resealed: Number of secrets that were encrypted again.
        unreadable: Secrets that no key decrypts; they have to be stored again.
        dropped: Keys that were removed from the file.
    """

    key_id: str
    resealed: int
    unreadable: Sequence[Secret]
    dropped: int


class Vault:
    """Encrypts secrets on their way to the store, and decrypts them for functions.

    A value is kept by nobody here, and shows in no log line of this process.
    """

    def __init__(self, store: SecretStore, keyring: Keyring) -> None:
        self.store = store
        self._keyring = keyring
        self._keys: dict[str, Key] = {}
        self._warning = ""

    def __repr__(self) -> str:
        return f"<Vault {self._keyring!r}>"

    @property
    def warnings(self) -> Sequence[str]:
        """Return why some secrets cannot be read, for the operator; empty if nothing is known to be wrong."""
        return (self._warning,) if self._warning else ()

    async def look(self) -> None:
        """Find out whether all stored secrets can be decrypted, for :attr:`warnings`.

        Raises:
            StoreUnavailable: The store fails.
        """
        used = await self.store.secret_keys()
        if not used:
            self._warning = ""
            return
        try:
            self._note(await self._load())
        except KeyUnusable as exc:
            self._warn(f"secrets cannot be read: {exc}")
            return
        missing = {key_id: amount for key_id, amount in used.items() if key_id not in self._keys}
        if missing:
            self._warn(self._explain(missing))
        else:
            self._warning = ""

    async def put(self, app_name: str, name: str, value: str, now: dt.datetime) -> Secret:
        """Encrypt a value and store it as a new secret, or as the next version of one.

        Raises:
            AppsNotFound: There is no such app.
            SecretsTooMany: The app has the maximum.
            SecretsKeyUnusable: There is no key to encrypt with.
        """
        redaction.hide_values([value])
        key = await self._present_key()
        stored = await self.store.put_secret(app_name, name, now, lambda secret: key.seal(secret, value))
        while (present := await self._present_key()) != key:  # rotated meanwhile, perhaps without this secret
            resealed = present.seal(stored, value)
            await self.store.reseal_secret(stored, resealed)
            stored, key = resealed, present
        return stored

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        """Return secrets of an app.

        Raises:
            SecretGone: One of them does not exist, or belongs to another app of this name.
            SecretUnreadable: One of them cannot be decrypted.
        """
        wanted = sorted(set(names))
        if not wanted:
            return NO_SECRETS
        found = {secret.name: secret for secret in await self.store.find_secrets(app_name, app_id, wanted)}
        for name in wanted:
            if name not in found:
                raise SecretGone(app_name, name)
        values = {name: await self._open(found[name]) for name in wanted}
        redaction.hide_values(values.values())
        return SecretValues(values, {name: version_of(found[name]) for name in wanted})

    async def rotate(self) -> Rotated:
        """Encrypt all secrets with a new key; with keys of the operator's, with the first of them.

        Both keys are in the file until the last secret has the new one, so a rotation that is killed loses nothing, and
        the next one completes it.

        Raises:
            StartUpError: The keys cannot be read or written.
            StoreUnavailable: The store fails; repeat the rotation.
        """
        try:
            keys = await self._load()
            if self._keyring.is_own:
                keys = [Key.generate(), *keys]
                await asyncio.to_thread(self._keyring.write, keys)
            elif not keys:
                raise KeyUnusable(f"{self._keyring.place}: contains no key")
            self._note(keys)
            resealed, unreadable = 0, list[Secret]()
            while True:
                count, left = await self._reseal_others(keys[0])
                resealed, unreadable = resealed + count, left
                if not count:  # nothing was stored with an old key meanwhile
                    break
            dropped = 0
            if self._keyring.is_own:
                needed = {secret.key_id for secret in unreadable}
                kept = [keys[0], *[key for key in keys[1:] if key.id in needed]]
                dropped = len(keys) - len(kept)
                await asyncio.to_thread(self._keyring.write, kept)
        except KeyUnusable as exc:
            raise StartUpError(str(exc)) from exc
        return Rotated(keys[0].id, resealed, unreadable, dropped)

    async def _reseal_others(self, key: Key) -> tuple[int, list[Secret]]:
        """Encrypt again what other keys have encrypted; return how many, and those that nobody can decrypt."""
        count, unreadable = 0, list[Secret]()
        for key_id in await self.store.secret_keys():
            after = ("", "")
            while key_id != key.id and (some := await self.store.secrets_of_key(key_id, after, _AT_ONCE)):
                after = (some[-1].app_name, some[-1].name)
                for secret in some:
                    try:
                        value = await self._open(secret)
                    except SecretUnreadable:
                        unreadable.append(secret)
                    else:
                        count += await self.store.reseal_secret(secret, key.seal(secret, value))
        return count, unreadable

    async def _open(self, secret: Secret) -> str:
        if secret.key_id not in self._keys:
            try:
                self._note(await self._load())
            except KeyUnusable as exc:
                self._warn(f"secrets cannot be read: {exc}")
                raise SecretUnreadable(secret.app_name, secret.name, str(exc)) from exc
        key = self._keys.get(secret.key_id)
        if key is None:
            self._warn(self._explain({secret.key_id: 1}))
            reason = f"this node does not have its key {secret.key_id} (hearth doctor)"
            raise SecretUnreadable(secret.app_name, secret.name, reason)
        try:
            return key.open(secret)
        except Undecryptable:
            _log.error("stored secret is damaged or was moved", app=secret.app_name, secret=secret.name)
            raise SecretUnreadable(secret.app_name, secret.name, "its row was changed or moved") from None

    async def _present_key(self) -> Key:
        """Return the key that encrypts, as it is now; create it with the first secret.

        Raises:
            SecretsKeyUnusable: There is none.
        """
        try:
            keys = await self._load()
            if not keys:
                if used := await self.store.secret_keys():
                    raise KeyUnusable(self._explain(used))
                keys = await asyncio.to_thread(self._keyring.create)
        except KeyUnusable as exc:
            self._warn(f"secrets cannot be stored: {exc}")
            raise SecretsKeyUnusable(f"Secrets cannot be stored: {exc}") from exc
        self._note(keys)
        return keys[0]

    async def _load(self) -> list[Key]:
        return await asyncio.to_thread(self._keyring.load)

    def _note(self, keys: Iterable[Key]) -> None:
        self._keys = {key.id: key for key in keys}

    def _explain(self, missing: Iterable[str]) -> str:
        """Return what is wrong where keys are missing, and what to do."""
        return (
            f"stored secrets need the key {', '.join(sorted(missing))}, which {self._keyring.place} does not contain; "
            "restore it from a backup, or run hearth secrets rotate-key and store these secrets again"
        )

    def _warn(self, text: str) -> None:
        if text != self._warning:
            _log.error(text)
        self._warning = text
