"""Copy the file of the embedded queue while a node uses it.

The node holds SQLite's lock of the file, so no other process can open it as a database. But another process can copy
its bytes: a page that a checkpoint changes during the copy of the file is also in the log, which is copied afterwards
and takes precedence. This holds until the log starts again, which its header shows. In the process of the
node itself the end of the copy would release the lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final

from hearth.models.errors import StoreUnavailable

#: The header of SQLite's log has two random numbers that change whenever the log starts again.
_HEADER_BYTES: Final = 32
_TRIES: Final = 20


def copy_file(path: Path, to: Path) -> None:
    """Copy the file of a queue as it is at one moment. Blocks.

    Args:
        path: An existing file; a node may use it.
        to: The copy, a file without a log; must not exist.

    Raises:
        StoreUnavailable: The file is no queue, or changed too much during each of several tries.
        OSError: A file cannot be read or written.
    """
    log, log_of_copy = _log_of(path), _log_of(to)
    for _ in range(_TRIES):
        before = _state(path, log)
        shutil.copyfile(path, to)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log, log_of_copy)
        if _state(path, log) == before:
            break
        log_of_copy.unlink(missing_ok=True)
    else:
        raise StoreUnavailable(f"{path}: the queue changes too fast; try again when the node is less busy")
    try:
        with contextlib.closing(sqlite3.connect(to)) as copy:
            copy.execute("SELECT count(*) FROM messages").fetchone()
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: cannot copy the queue: {exc}") from exc


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _state(path: Path, log: Path) -> tuple[bytes, int, int]:
    """Return what stays the same until the log starts again; of a file without a log, the file itself."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        if header := file.read(_HEADER_BYTES):
            return header, 0, 0
    found = os.stat(path)
    return b"", found.st_mtime_ns, found.st_size
