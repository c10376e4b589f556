"""The id of a node on its machine, kept in its data folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hearth.host import private_files
from hearth.models.errors import StartUpError

FILE: Final = "node-id"
_ID: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)


def node_id(folder: Path) -> str:
    """Return the id of the node that has this data folder; create it at the first start.

    The folder's path cannot identify a node: nodes in containers have the same path, and may share one Docker Engine.
    Blocks shortly.

    Raises:
        StartUpError: The folder cannot be written to, or the file holds something else.
    """
    path = folder / FILE
    try:
        if not path.exists():
            private_files.create(path, f"{secrets.token_hex(6)}\n")
        found = path.read_text("ascii", errors="replace").strip()
    except OSError as exc:
        raise StartUpError(f"FN_DATA_DIR={folder}: {exc.strerror}; choose a folder that can be written to") from exc
    if _ID.fullmatch(found) is None:
        raise StartUpError(f"{path}: holds no id of a node; remove it, and a new one is made")
    return found


@contextlib.contextmanager
def held_id(folder: Path) -> Iterator[str]:
    """Yield the id of the node that has this data folder, and keep other nodes of this machine from using it.

    A node removes what earlier runs with its id left, so two nodes with one id would remove each other's functions. The
    lock of the file stops a second node that shares the folder, wherever it is mounted. An abstract socket stops a node
    with a copy of the folder in the same network namespace.

    Raises:
        StartUpError: As :func:`node_id`; or another process has the id.
    """
    found = node_id(folder)
    with _locked(folder / FILE), _claimed(found, folder / FILE):
        yield found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        file = path.open("r+b")
    except OSError as exc:
        raise StartUpError(f"{path}: {exc.strerror}; let the node read and write it") from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartUpError(
                f"FN_DATA_DIR={path.parent}: another node uses this data folder; stop it, or choose another folder"
            ) from None
        yield


@contextlib.contextmanager
def _claimed(node: str, path: Path) -> Iterator[None]:
    """Hold the name of an abstract socket: it has no file that could be removed, and ends with the process."""
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0hearth-node-{node}")
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise StartUpError(f"{path}: the id cannot be claimed: {exc.strerror}") from exc
            raise StartUpError(
                f"{path}: another node of this machine runs with this id, from a copy of this data folder; "
                "remove the file, and a new id is made"
            ) from None
        yield
