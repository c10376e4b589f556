"""Bundles: functions as plain folders (``<bundles>/<name>/<tag>/``).

``<tag>`` is a link to the folder of its last build, ``.<tag>@...``. A build puts its folder beside and moves the link;
the folder before goes when no container holds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

MANIFEST: Final = "bundle.json"
#: Where a bundle's own files are.
FILES: Final = "function"
_REFERENCE: Final = re.compile(r"([a-z0-9][a-z0-9._/-]*?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?", re.ASCII)


class Manifest(msgspec.Struct, kw_only=True):
    """How a bundle is run.

    ``roots``: folders outside the system's that the command needs to see. ``content``: a digest of all the files;
    another text once the bundle was built from something else.
    """

    cmd: list[str]
    env: dict[str, str] = msgspec.field(default_factory=dict)
    roots: list[str] = msgspec.field(default_factory=list)
    content: str = ""


class Bundle:
    """One bundle on disk."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def files(self) -> Path:
        """The function's own files: its working directory."""
        return self.folder / FILES

    def hold(self) -> int | None:
        """Keep it from being removed, as long as the descriptor that is returned is open.

        ``None``: it is being removed, since another build has taken its place.
        """
        try:
            held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not _lock(held, fcntl.LOCK_SH) or not (self.folder / MANIFEST).exists():
            os.close(held)
            return None
        return held


def locate(bundles: Path, image: str) -> Path | None:
    """The folder of a reference ``name[:tag]``, always below ``bundles``; ``None`` if it names no bundle."""
    match = _REFERENCE.fullmatch(image)
    if match is None or any(part in ("", ".", "..") for part in match[1].split("/")):
        return None
    return bundles / match[1] / (match[2] or "latest")


def load(folder: Path) -> Bundle | None:
    """The bundle in a folder, if there is one. Blocks shortly."""
    folder = folder.resolve()  # first: another build may take its place at any moment
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return Bundle(folder, manifest)


def remove_unheld(folder: Path) -> None:
    """Remove a bundle that is no more the current one, unless a container holds it."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        if _lock(held, fcntl.LOCK_EX):
            (folder / MANIFEST).unlink(missing_ok=True)  # first: nobody is to hold what is half removed
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def _lock(descriptor: int, how: int) -> bool:
    """Whether nobody else has it locked in a way that stands against this."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nothing is removed
        return how == fcntl.LOCK_SH
    return True
