"""The tokens that ``hearth login`` has stored: ``~/.fn/hearth-tokens.json``, by address, for this user only."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hearth.cli.output import CommandError
from hearth.host import private_files

FILE: Final = "hearth-tokens.json"
_PORTS: Final = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True, slots=True)
class StoredCredentials:
    """Tokens by the address of their server."""

    folder: Path = dataclasses.field(default_factory=lambda: Path.home() / ".fn")

    def get(self, url: str) -> str:
        """Return the token of a server; empty if there is none.

        Raises:
            CommandError: The file cannot be read, or other users may read or write it.
        """
        stored = self._read()
        return stored.get(address(url), "") if stored else ""

    def put(self, url: str, token: str) -> None:
        """Store the token of a server.

        Raises:
            CommandError: The file cannot be written.
        """
        self._write({**self._read(), address(url): token})

    def remove(self, url: str) -> bool:
        """Delete the token of a server; return whether there was one.

        Raises:
            CommandError: The file cannot be written.
        """
        stored = self._read()
        if stored.pop(address(url), None) is None:
            return False
        self._write(stored)
        return True

    @property
    def _path(self) -> Path:
        return self.folder / FILE

    def _read(self) -> dict[str, str]:
        try:
            with open(self._path, encoding="utf-8") as file:
                found = os.fstat(file.fileno())
                if found.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(found.st_mode) & 0o077:
                    raise CommandError(f"{self._path}: other users have rights on it; chmod 600 takes them")
                stored = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "contains no JSON"
            raise CommandError(f"{self._path}: {reason}; hearth login writes a new one once it is removed") from exc
        if not isinstance(stored, dict):
            raise CommandError(f"{self._path}: must be a mapping of addresses to tokens")
        return {str(address): str(token) for address, token in stored.items()}

    def _write(self, tokens: dict[str, str]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            private_files.replace(self._path, json.dumps(tokens, indent=2, sort_keys=True) + "\n")
        except OSError as exc:
            raise CommandError(f"{self._path}: {exc.strerror or exc}") from exc


def address(url: str) -> str:
    """Return scheme, host and port of a URL, all of them written out: no other server gets the token.

    Raises:
        CommandError: It is no URL of a server.
    """
    if url.startswith("unix:"):
        return url
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as exc:
        raise CommandError(f"{url}: {exc}") from exc
    except KeyError as exc:
        raise CommandError(f"{url}: the URL of a server begins with http:// or https://") from exc
    host = (parts.hostname or "").lower()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
