"""What a node is called on its machine: an id that lies in its data folder."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Final

from hearth.models.errors import StartUpError

FILE: Final = "node-id"
_ID: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)


def node_id(folder: Path) -> str:
    """The id of the node that has this data folder, made at its first start: the same after every further one.

    The folder's path would not do: nodes in containers all have the same, and may share one Docker Engine. Blocks
    shortly.

    Raises:
        StartUpError: The folder cannot be written to, or the file holds something else.
    """
    path = folder / FILE
    try:
        if not path.exists():
            _make(path)
        found = path.read_text("ascii", errors="replace").strip()
    except OSError as exc:
        raise StartUpError(f"FN_DATA_DIR={folder}: {exc.strerror}; choose a folder that can be written to") from exc
    if _ID.fullmatch(found) is None:
        raise StartUpError(f"{path}: holds no id of a node; remove it, and a new one is made")
    return found


def _make(path: Path) -> None:
    """Whole, or not at all; where two make it at once, both find the one that was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, made = tempfile.mkstemp(prefix=f".{FILE}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(6)}\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)
