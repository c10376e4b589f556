"""Bundles: functions as plain folders (``<bundles>/<name>/<tag>/``)."""

from __future__ import annotations

import re
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


def locate(bundles: Path, image: str) -> Path | None:
    """The folder of a reference ``name[:tag]``, always below ``bundles``; ``None`` if it names no bundle."""
    match = _REFERENCE.fullmatch(image)
    if match is None or any(part in ("", ".", "..") for part in match[1].split("/")):
        return None
    return bundles / match[1] / (match[2] or "latest")


def load(folder: Path) -> Bundle | None:
    """The bundle in a folder, if there is one. Blocks shortly."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return Bundle(folder.resolve(), manifest)
