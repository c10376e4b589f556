"""Encrypt and decrypt the values of secrets: AES-256-GCM.

What is authenticated with a value are the app, the secret, its version and its key: a row that is moved to another app
or name, or set back to an older version, is not decrypted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from typing import Final

import msgspec

from hearth.models.secret import Secret

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 8
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_PURPOSE: Final = b"hearth-secret-1"


class Undecryptable(Exception):
    """The row is not what was encrypted with this key."""


class Key:
    """A key. Its ``id`` names it without telling anything of it."""

    __slots__ = ("_cipher", "_data", "id")

    def __init__(self, data: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 10 ms and 6 MiB, where there are secrets

        if len(data) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(data)}")
        self._data = data
        self._cipher = AESGCM(data)
        self.id = hashlib.blake2b(data, digest_size=_KEY_ID_BYTES, person=_PURPOSE).hexdigest()

    def __repr__(self) -> str:
        return f"<Key {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and secrets.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # compared in constant time only

    @classmethod
    def generate(cls) -> Key:
        """Return a new random key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Key:
        """Return a key from text: 32 bytes in base64 or as 64 hexadecimal digits.

        Raises:
            ValueError: The text is neither. The message does not contain it.
        """
        if _HEX.fullmatch(text):
            return cls(bytes.fromhex(text))
        try:
            data = base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"a key is {KEY_BYTES} bytes in base64, or 64 hexadecimal digits") from None
        return cls(data)

    def text(self) -> str:
        """Return the key as text. Only for the file of keys."""
        return base64.b64encode(self._data).decode()

    def seal(self, secret: Secret, value: str) -> Secret:
        """Return the secret with its value, encrypted."""
        made = msgspec.structs.replace(secret, key_id=self.id)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed: bytes = self._cipher.encrypt(nonce, value.encode(), _authenticated(made))
        return msgspec.structs.replace(made, sealed=nonce + sealed)

    def open(self, secret: Secret) -> str:
        """Return the value of a secret.

        Raises:
            Undecryptable: The row was changed, moved, or encrypted with another key.
        """
        from cryptography.exceptions import InvalidTag

        nonce, sealed = secret.sealed[:_NONCE_BYTES], secret.sealed[_NONCE_BYTES:]
        try:
            value: bytes = self._cipher.decrypt(nonce, sealed, _authenticated(secret))
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            raise Undecryptable from None
        return value.decode()


def _authenticated(secret: Secret) -> bytes:
    fields = [secret.app_id, secret.app_name, secret.name, secret.id, str(secret.version), secret.key_id]
    return _PURPOSE + msgspec.json.encode(fields)
