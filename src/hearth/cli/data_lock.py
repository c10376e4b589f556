"""Lock a data folder for one node; a second one gets an error that names the first."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hearth.host import private_files
from hearth.models.errors import StartUpError

#: The files that a node, and the parent of workers or of a local fleet, lock in their data folder.
NODE_LOCK: Final = "hearth.lock"
FLEET_LOCK: Final = "crew.lock"


@contextlib.contextmanager
def data_lock(folder: Path, name: str = NODE_LOCK) -> Iterator[Callable[[str], None]]:
    """Hold the lock of a data folder; yield a function that notes the node's URL for the error of a second node.

    The kernel releases the lock when the process ends. The command finds the node of a port by it.

    Raises:
        StartUpError: Another process holds the lock, or the folder is not writable or belongs to another user.
    """
    path = folder / name
    try:
        private_files.make_folder(folder)
        _check_owner(folder)
        file = open(path, "ab", buffering=0, opener=_open_itself)
    except OSError as exc:
        raise StartUpError(f"FN_DATA_DIR={folder}: {exc.strerror}; choose a folder that can be written to") from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text().strip() or "another process"
            raise StartUpError(
                f"{folder}: this data folder is in use by {owner}; stop that, or set FN_DATA_DIR to another folder"
            ) from None
        private_files.close_to_others(folder)

        def note(url: str) -> None:
            file.truncate(0)
            with contextlib.suppress(OSError):  # on a full disk, the error for a second node has no name
                file.write(f"process {os.getpid()}, {url}".encode())

        note("which is starting")
        yield note


def _check_owner(folder: Path) -> None:
    """Refuse a folder of another user, who could redirect writes to any file of this user.

    Raises:
        StartUpError: The folder belongs to another user.
    """
    owner, user = folder.stat().st_uid, os.geteuid()
    if owner not in (0, user):
        raise StartUpError(
            f"FN_DATA_DIR={folder}: belongs to user {owner}, not to user {user} that runs this; run it as "
            f"user {owner}, change the owner (chown -R {user} {folder}), or choose another folder"
        )


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
