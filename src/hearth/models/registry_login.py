"""Registries of images, and the logins that apps store for them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from hearth.models.errors import RegistriesInvalidLogin, RegistriesInvalidName

#: The public registry, under the name that the Engine itself gives it.
HUB: Final = "docker.io"
_HUB_ALIASES: Final = frozenset({"", HUB, "hub.docker.com", "index.docker.io"})
_HOST: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_SCHEME: Final = re.compile(r"^https?://", re.IGNORECASE)
_API_VERSION: Final = re.compile(r"/v[12]$")
_MAX_REGISTRY: Final = 200
_MAX_USERNAME: Final = 255
_MAX_PASSWORD: Final = 16384
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
#: The beginning of the names under which logins are stored among the secrets of an app. No secret of a function has it.
_PREFIX: Final = "registry:"


class RegistryLogin(msgspec.Struct, frozen=True):
    """The user name and the password of an app at a registry. Never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "<RegistryLogin>"


def registry_of(address: str) -> str:
    """Return the registry of an address in credentials, which may have a scheme, a slash or an API version."""
    bare = _API_VERSION.sub("", _SCHEME.sub("", address.strip()).rstrip("/")).lower()
    return HUB if bare in _HUB_ALIASES else bare


def is_host(text: str) -> bool:
    """Return whether a text is a ``host[:port]``."""
    return _HOST.fullmatch(text) is not None


def valid_registry(address: str) -> str:
    """Return the ``host[:port]`` of a registry that an app names.

    Raises:
        RegistriesInvalidName: The text names no registry.
    """
    registry = registry_of(address) if address else ""
    if not is_host(registry) or len(registry) > _MAX_REGISTRY:
        raise RegistriesInvalidName
    return registry


def validate_login(login: RegistryLogin) -> None:
    """Check a login that an app stores.

    Raises:
        RegistriesInvalidLogin: One of its parts cannot be sent to a registry.
    """
    if not 0 < len(login.username) <= _MAX_USERNAME or ":" in login.username or _CONTROL.search(login.username):
        raise RegistriesInvalidLogin(f"username must have 1 to {_MAX_USERNAME} characters without a colon")
    if not 0 < len(login.password) <= _MAX_PASSWORD or _CONTROL.search(login.password):
        raise RegistriesInvalidLogin(f"password must have 1 to {_MAX_PASSWORD} characters")


def name_of_login(registry: str) -> str:
    """Return the name under which an app stores its login at a registry."""
    return f"{_PREFIX}{registry}"


def registry_of_login(name: str) -> str:
    """Return the registry of a stored login; empty if the name is that of a secret."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""
