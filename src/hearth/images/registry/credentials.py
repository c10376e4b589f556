"""Credentials of registries: from a setting, else from docker's own files (drivers specification 2.2).

A registry gets what was stored for exactly its host and port, never what was stored for one that looks alike. Secrets
are read when an image is fetched, are never kept, and never show in a log line or a ``repr``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearth.images.registry.credential_helpers import ask
from hearth.models.errors import StartUpError
from hearth.models.registry_login import registry_of
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Auth:
    """The credentials of one registry: a name with a password, or a token."""

    username: str
    password: str = dataclasses.field(repr=False)
    identity_token: str = dataclasses.field(default="", repr=False)

    def as_engine_takes_it(self) -> dict[str, str]:
        """In the form that goes along with a pull."""
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        return {"username": self.username, "password": self.password}


@dataclasses.dataclass(frozen=True, slots=True)
class _Config:
    """A docker configuration, by registry."""

    auths: Mapping[str, Auth]
    helpers: Mapping[str, str]
    store: str | None


_NOTHING = _Config({}, {}, None)


class Credentials:
    """Finds what opens a registry.

    Args:
        text: A docker configuration in JSON; wins over the files, even if it names fewer registries.
        files: Where docker keeps its configuration; the first that exists counts.

    Raises:
        StartUpError: ``text`` is not a Docker configuration.
    """

    def __init__(self, text: str = "", files: tuple[Path, ...] = ()) -> None:
        self._files = files
        self._given: _Config | None = None
        if text:
            try:
                self._given = _config(json.loads(text))
            except ValueError:  # neither it nor its cause is shown: they quote the text
                raise StartUpError("DOCKER_AUTH: must be a Docker configuration in JSON") from None

    async def announce(self) -> None:
        """Say so if there is nothing to find: the usual reason for a refused image."""
        if self._given is None and await asyncio.to_thread(self._read) == _NOTHING:
            _log.info("no docker auths from config files found (this is fine)")

    async def find(self, registry: str) -> Auth | None:
        """Return the credentials of a registry, if there are any.

        Args:
            registry: ``host[:port]``, as in a parsed reference.
        """
        config = self._given if self._given is not None else await asyncio.to_thread(self._read)
        if (helper := config.helpers.get(registry)) is not None:
            return await _from_helper(helper, registry)
        if (auth := config.auths.get(registry)) is not None:
            return auth
        return await _from_helper(config.store, registry) if config.store else None

    def _read(self) -> _Config:
        for path in self._files:
            try:
                return _config(json.loads(path.read_bytes()))
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                _log.warning("docker configuration cannot be read, going on without", file=str(path))
        return _NOTHING


async def _from_helper(helper: str, registry: str) -> Auth | None:
    answer = await ask(helper, registry)
    if answer is None:
        return None
    username, secret = answer
    if username == "<token>":  # how a helper says that the secret is a token
        return Auth("", "", secret)
    return Auth(username, secret)


def _config(raw: Any) -> _Config:
    """Read a configuration; the legacy file is nothing but the map of registries."""
    if not isinstance(raw, dict):
        raise ValueError("not an object")  # to the caller it is the same as broken JSON
    is_new = any(name in raw for name in ("auths", "credHelpers", "credsStore"))
    auths: dict[str, Auth] = {}
    for address, entry in _mapping(raw.get("auths") if is_new else raw).items():
        if (auth := _auth(entry)) is not None:
            auths.setdefault(registry_of(address), auth)  # of two spellings of one registry the first counts
    helpers = {registry_of(address): str(name) for address, name in _mapping(raw.get("credHelpers")).items()}
    return _Config(auths, helpers, str(raw.get("credsStore") or "") or None)


def _auth(entry: Any) -> Auth | None:
    """One entry; ``None`` if it is empty, as docker leaves it for what a helper keeps."""
    if not isinstance(entry, dict):
        return None
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        with contextlib.suppress(binascii.Error, ValueError):
            decoded = base64.b64decode(str(entry["auth"])).decode()
            username, _, password = decoded.rstrip("\0").partition(":")
    token = str(entry.get("identitytoken") or "")
    return Auth(username, password, token) if token or (username and password) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
