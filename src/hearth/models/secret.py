"""Secrets of an app: values that its functions get and that no answer shows."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from hearth.models.errors import (
    MAX_SECRET_BYTES,
    MAX_SECRET_NAME_LENGTH,
    SecretsInvalidName,
    SecretsInvalidValue,
    SecretsMissingValue,
    SecretsTooLarge,
)
from hearth.models.times import ZERO

#: How a function gets its secrets: as environment variables, or as files in :data:`FOLDER`.
ENV: Final = "env"
FILES: Final = "files"
WAYS: Final = (ENV, FILES)
#: The folder of the files of secrets, as the function sees it.
FOLDER: Final = "/run/secrets"

#: Both beginnings are Hearth's: its variables, and those in which it hands over the environment of a process.
_NAME: Final = re.compile(r"(?!FN_|HEARTH_)[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NO_VALUE: Final = re.compile(r"[\x00\ud800-\udfff]")


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A stored secret, without its value.

    Attributes:
        app_id: Identity of the app; empty if the app has no id.
        id: Identity of the secret: one that is deleted and stored again under the same name has another one.
        version: 1 at first; each change adds 1.
        key_id: Identifies the key that ``sealed`` was made with.
        sealed: The encrypted value; empty in lists. Never shown.
    """

    app_name: str
    app_id: str
    name: str
    id: str
    version: int
    updated_at: dt.datetime = ZERO
    key_id: str = ""
    sealed: bytes = b""

    def __repr__(self) -> str:
        return f"<Secret {self.app_name} {self.name} version={self.version} key={self.key_id}>"


class SecretValues(msgspec.Struct, frozen=True):
    """The secrets of one function.

    Attributes:
        values: By name. Never shown.
        versions: What tells one value of a secret from all others, by name; not secret.
    """

    values: dict[str, str]
    versions: dict[str, str]

    def __repr__(self) -> str:
        return f"<SecretValues {' '.join(sorted(self.values))}>"


NO_SECRETS: Final = SecretValues({}, {})


def version_of(secret: Secret) -> str:
    """Return what tells the present value of a secret from all others."""
    return f"{secret.id}:{secret.version}"


def is_secret_name(name: str) -> bool:
    """Return whether a secret may have a name: an environment variable that is not Hearth's own."""
    return len(name) <= MAX_SECRET_NAME_LENGTH and _NAME.fullmatch(name) is not None


def validate_secret_name(name: str) -> None:
    """Check the name of a secret.

    Raises:
        SecretsInvalidName: It is not the name of an environment variable, is too long, or has a reserved beginning.
    """
    if not is_secret_name(name):
        raise SecretsInvalidName


def validate_secret_names(names: Sequence[str]) -> None:
    """Check the names of the secrets that a function gets.

    Raises:
        SecretsInvalidName: One of them is not a name.
    """
    for name in names:
        validate_secret_name(name)


def validate_secret_value(value: str) -> None:
    """Check the value of a secret.

    Raises:
        SecretsMissingValue: It is empty.
        SecretsInvalidValue: It contains NUL, or is not valid Unicode.
        SecretsTooLarge: It has too many bytes in UTF-8.
    """
    if not value:
        raise SecretsMissingValue
    if _NO_VALUE.search(value):
        raise SecretsInvalidValue
    if (size := len(value.encode())) > MAX_SECRET_BYTES:
        raise SecretsTooLarge(size)
