"""The keys of secrets: from the settings, or from a file that the first secret creates.

The first key encrypts; the others only decrypt, until all secrets have been encrypted again (:meth:`Keyring.rotate`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hearth.host import private_files
from hearth.models.errors import StartUpError
from hearth.stores.secrets.sealing import Key

FILE: Final = "secret-key"
_MOST_BYTES: Final = 64 * 1024


class KeyUnusable(Exception):
    """The keys cannot be read or written; the text says why, and what to do."""


class Keyring:
    """The keys of one node. Its methods block shortly.

    Args:
        given: ``FN_SECRET_KEY``; keys separated by commas or white space.
        file: ``FN_SECRET_KEY_FILE``; the operator's own. ``None``: none.
        own: The file of the data folder, which this class creates and changes.
    """

    def __init__(self, given: str, file: Path | None, own: Path) -> None:
        self._given = given
        self._file = file
        self._own = own

    def __repr__(self) -> str:
        return f"<Keyring {self.place}>"

    @property
    def place(self) -> str:
        """Return where the keys are, for messages."""
        if self._given:
            return "FN_SECRET_KEY"
        return f"FN_SECRET_KEY_FILE={self._file}" if self._file is not None else str(self._own)

    @property
    def is_own(self) -> bool:
        """Return whether the keys are in the file of the data folder."""
        return not self._given and self._file is None

    def load(self) -> list[Key]:
        """Return the keys, the one that encrypts first; none if there is no file yet.

        Raises:
            KeyUnusable: They cannot be read.
        """
        if self._given:
            return self._parse(self._given)
        try:
            if self._file is not None:
                return self._parse(self._file.read_bytes()[:_MOST_BYTES].decode("ascii", "replace"), at_least=1)
            return self._parse(private_files.read_own(self._own, os.geteuid(), _MOST_BYTES), at_least=1)
        except FileNotFoundError:
            if self._file is None:
                return []
            raise KeyUnusable(f"{self.place}: no such file; create it, or unset the variable") from None
        except private_files.NotPrivate as exc:
            raise KeyUnusable(f"{self._own}: {exc}; correct its owner and mode (0600)") from exc
        except OSError as exc:
            raise KeyUnusable(f"{self.place}: {exc.strerror}; let the node read it") from exc

    def create(self) -> list[Key]:
        """Create the file with a new key, unless there is one; return its keys.

        Raises:
            KeyUnusable: It cannot be created or read.
        """
        try:
            private_files.create(self._own, f"{Key.generate().text()}\n")
        except OSError as exc:
            raise KeyUnusable(f"{self._own}: {exc.strerror}; set FN_SECRET_KEY_FILE instead") from exc
        return self.load()

    def write(self, keys: list[Key]) -> None:
        """Replace the keys of the file, whole or not at all.

        Raises:
            KeyUnusable: It cannot be written.
        """
        try:
            private_files.make_folder(self._own.parent)
            private_files.replace(self._own, "".join(f"{key.text()}\n" for key in keys))
        except OSError as exc:
            raise KeyUnusable(f"{self._own}: {exc.strerror}; let the node write it") from exc

    def _parse(self, text: str, at_least: int = 0) -> list[Key]:
        words = text.replace(",", " ").split()
        try:
            keys = [Key.parse(word) for word in words]
        except ValueError as exc:
            raise KeyUnusable(f"{self.place}: {exc}; restore it from a backup") from None
        if len(keys) < at_least:
            raise KeyUnusable(f"{self.place}: contains no key; restore it from a backup")
        return keys


def check_keys(given: str) -> None:
    """Check ``FN_SECRET_KEY`` at a start.

    Raises:
        StartUpError: It is set and is not a list of keys.
    """
    try:
        for word in given.replace(",", " ").split():
            Key.parse(word)
    except ValueError as exc:
        raise StartUpError(f"FN_SECRET_KEY: {exc}; create one with: openssl rand -base64 32") from None
