"""The file of ends that a runner has not delivered to its API node yet; bounded, and synced at each commit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from hearth.host import private_files
from hearth.models.errors import StartUpError, StoreUnavailable

T = TypeVar("T")

ENDED: Final = 0
ACKNOWLEDGED: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    data BLOB NOT NULL
)
"""

#: Bytes of the test write to a disk that has failed: about the end of a call with a long log.
_TRIED_BYTES: Final = 64 * 1024

#: Number, kind and bytes.
Item = tuple[int, int, bytes]


class Spool:
    """Items in order of arrival. Use :meth:`open`.

    Args:
        path: The file.
        limit_bytes: Size above which the node should take no new work. Ends of running calls are still kept.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "spool")
        self._db: sqlite3.Connection
        self._broken = False
        self.size_bytes = 0
        self.items = 0

    def __repr__(self) -> str:
        return f"<Spool {self._path} items={self.items} bytes={self.size_bytes}>"

    @classmethod
    async def open(cls, path: Path, limit_bytes: int) -> Spool:
        """Open the file, or create it, with what an earlier run left.

        Raises:
            StartUpError: The file cannot be opened.
        """
        spool = cls(path, limit_bytes)
        try:
            spool.items, spool.size_bytes = await spool._in_thread(spool._open)
        except (OSError, sqlite3.Error) as exc:
            spool._thread.shutdown()
            raise StartUpError(f"{path}: cannot keep what ended here: {exc}") from exc
        return spool

    async def close(self) -> None:
        """Close the file."""
        await self._in_thread(lambda: self._db.close())
        self._thread.shutdown()

    @property
    def is_broken(self) -> bool:
        """True if the last operation on the disk failed."""
        return self._broken

    @property
    def has_room(self) -> bool:
        """True if the ends of new work can be kept."""
        return self.size_bytes < self._limit_bytes and not self._broken

    async def put(self, items: Sequence[tuple[int, bytes]]) -> None:
        """Store items; durable when this returns.

        Raises:
            StoreUnavailable: The write fails.
        """
        await self._commit(lambda: self._insert(items))

    async def first(self, max_items: int, max_bytes: int) -> list[Item]:
        """Return the oldest items: at least one, if there is one."""
        found = await self._guarded(lambda: self._select(max_items))
        size = 0
        taken: list[Item] = []
        for item in found:
            size += len(item[2])
            if taken and size > max_bytes:
                break
            taken.append(item)
        return taken

    async def remove(self, items: Sequence[Item]) -> None:
        """Delete items."""
        await self._commit(lambda: self._delete(items))

    async def recover(self) -> None:
        """Find out whether a disk that has failed works again.

        Raises:
            StoreUnavailable: It still fails.
        """
        if self._broken:
            await self._commit(self._write_test)

    async def _commit(self, work: Callable[[], None]) -> None:
        await self._guarded(work)
        self._broken = False

    async def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return await self._in_thread(work)
        except sqlite3.Error as exc:
            self._broken = True
            raise StoreUnavailable(f"{self._path}: {exc}") from exc

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # A cancellation does not undo what has started; only the caller stops waiting.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _open(self) -> tuple[int, int]:
        private_files.make_file(self._path)
        self._db = sqlite3.connect(self._path, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)
        row: tuple[int, int] = self._db.execute("SELECT count(*), coalesce(sum(length(data)), 0) FROM items").fetchone()
        return row

    def _insert(self, items: Sequence[tuple[int, bytes]]) -> None:
        with self._db:
            self._db.executemany("INSERT INTO items (kind, data) VALUES (?, ?)", items)
        # Counted here, with the commit: the caller may have been cancelled.
        self.items += len(items)
        self.size_bytes += sum(len(data) for _, data in items)

    def _select(self, limit: int) -> list[Item]:
        return self._db.execute("SELECT seq, kind, data FROM items ORDER BY seq LIMIT ?", (limit,)).fetchall()

    def _write_test(self) -> None:
        with self._db:
            made = self._db.execute("INSERT INTO items (kind, data) VALUES (?, zeroblob(?))", (ENDED, _TRIED_BYTES))
            self._db.execute("DELETE FROM items WHERE seq = ?", (made.lastrowid,))

    def _delete(self, items: Sequence[Item]) -> None:
        with self._db:
            self._db.executemany("DELETE FROM items WHERE seq = ?", [(seq,) for seq, _, _ in items])
        self.items -= len(items)
        self.size_bytes -= sum(len(data) for _, _, data in items)
