"""Copy the SQLite file of a database that other processes use."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from hearth.models.errors import StoreUnavailable
from hearth.sql.address import BUSY_TIMEOUT_S


def copy_file(path: Path, to: Path, while_locked: Callable[[], None] = lambda: None) -> None:
    """Copy a database as it is at one moment. Others read and write it meanwhile. Blocks.

    The copy is what the database held while ``while_locked`` ran: nobody wrote to it in that time.

    Args:
        path: An existing file.
        to: The copy; must not exist.
        while_locked: Copies what has to agree with the database. Writers wait until it returns, so it must be quick.

    Raises:
        StoreUnavailable: The file is no database, or another process holds it for long.
    """
    try:
        with (
            contextlib.closing(_open(path)) as lock,
            contextlib.closing(_open(path)) as source,
            contextlib.closing(sqlite3.connect(to)) as copy,
        ):
            lock.execute("BEGIN IMMEDIATE")
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the view of this transaction begins here
            while_locked()
            lock.execute("ROLLBACK")
            source.backup(copy)
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{path}: cannot copy the database: {exc}") from exc


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
