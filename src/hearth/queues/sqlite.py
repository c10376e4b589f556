"""The embedded queue: one SQLite file (``bolt://``), or memory (``memory://``).

The file is written by one thread of its own and synced whenever a call is accepted or settled: what was answered
survives a loss of power. A reservation need not: who held it is gone as well. Memory needs no thread.
Leases are measured by the monotonic clock while this process lives, so that a step of the wall clock ends none of
them; the wall time that is stored with them counts after a restart only.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from hearth.clock import Clock
from hearth.models.call import Call
from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.models.message import encode_call
from hearth.queues.base import PRIORITIES, VISIBILITY_TIMEOUT_S, Backlog, Queue, Reserved
from hearth.queues.messages import Row, decode_rows, oldest
from hearth.worker import WorkThread

T = TypeVar("T")

_MEMORY: Final = ":memory:"
#: Each commit waits for the disk, and now and then moves what was written to its place.
_SYNCED: Final = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000"
#: No commit waits for the disk; the next one that does makes up for it.
_UNSYNCED: Final = "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0"
_MAGIC: Final = b"SQLite format 3\0"
#: Seconds to wait for another process that holds the file.
_LOCK_WAIT_S: Final = 1.0
#: While nothing is due earlier, look again after this long at most: the wall clock may have been set.
_LOOK_AGAIN_S: Final = 60.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    priority INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    visible_ms INTEGER NOT NULL,
    lease TEXT,
    deliveries INTEGER NOT NULL DEFAULT 0,
    call BLOB NOT NULL,
    call_id TEXT
);
CREATE INDEX IF NOT EXISTS messages_ready ON messages (priority DESC, seq) WHERE ready = 1;
CREATE INDEX IF NOT EXISTS messages_hidden ON messages (visible_ms) WHERE ready = 0 AND lease IS NULL;
CREATE INDEX IF NOT EXISTS messages_leased ON messages (lease) WHERE lease IS NOT NULL;
"""
#: Files of earlier versions lack the id; their messages go without.
_ADD_CALL_ID: Final = "ALTER TABLE messages ADD COLUMN call_id TEXT"
_ONE_OF_EACH_CALL: Final = "CREATE UNIQUE INDEX IF NOT EXISTS messages_call ON messages (call_id)"
_INSERT: Final = """
INSERT INTO messages (priority, ready, visible_ms, call, call_id) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (call_id) DO NOTHING
"""


async def open_bolt(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """The queue in the file that ``bolt:///absolute/path`` names; made if need be.

    Raises:
        StartUpError: The file is another process's, or no queue of Hearth's; it is left untouched.
    """
    path = url.partition("://")[2]
    if not path:
        raise StartUpError(f"FN_MQ_URL={url}: use bolt:///absolute/path/to/fn.mq")
    return await SqliteQueue.open(path, clock, visibility_s=visibility_s)


async def open_memory(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """A queue that ends with the process."""
    return await SqliteQueue.open(_MEMORY, clock, visibility_s=visibility_s)


class SqliteQueue(Queue):
    """Use :meth:`open`."""

    def __init__(self, path: str, clock: Clock, visibility_s: float) -> None:
        self.visibility_s = visibility_s
        self._path = path
        self._clock = clock
        self._thread: WorkThread | _Here = _Here() if path == _MEMORY else WorkThread("hearth-queue")
        self._db: sqlite3.Connection
        self._leases: dict[str, float] = {}
        self._kept = 0
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._path} leased={len(self._leases)}>"

    @classmethod
    async def open(cls, path: str, clock: Clock, *, visibility_s: float) -> SqliteQueue:
        """Open the file and take it for this process alone.

        Raises:
            StartUpError: It cannot be had.
        """
        queue = cls(path, clock, visibility_s)
        try:
            left = await queue._in_thread(lambda: queue._open(clock.now_ms()))
        except BaseException:
            queue._thread.end()
            raise
        now = clock.monotonic()
        queue._leases = {lease: now + min(visibility_s, max(0.0, seconds)) for lease, seconds in left}
        queue._ready.set()
        return queue

    async def push(self, calls: Sequence[Call]) -> None:
        """Keep calls in one transaction."""
        now_ms = self._clock.now_ms()
        rows = [
            (call.priority, not call.delay, now_ms + call.delay * 1000, encode_call(call), call.id) for call in calls
        ]
        added = await self._in_thread(lambda: self._insert(rows))
        self._kept += added
        self._ready.set()

    async def reserve(self, limit: int) -> list[Reserved]:
        """Take up to ``limit`` messages."""
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        expired = [lease for lease, until in self._leases.items() if until <= now]
        self._ready.clear()  # before the look: what is pushed after it wakes again
        taking = self._start(self._in_thread(lambda: self._take_unsynced(limit, expired, now_ms)))
        try:
            rows, next_ms = await asyncio.shield(taking)
        except BaseException as exc:
            self._ready.set()
            if isinstance(exc, asyncio.CancelledError):
                taking.add_done_callback(self._give_back)
            raise
        for lease in expired:
            self._leases.pop(lease, None)
        for lease, _, _ in rows:
            self._leases[lease] = now + self.visibility_s
        if len(rows) == limit:
            self._ready.set()
        else:
            self._look_when_due(None if next_ms is None else (next_ms - now_ms) / 1000)
        reserved, worthless = decode_rows(rows, now + self.visibility_s)
        if worthless:
            self._start(self._in_thread(lambda: self._delete(worthless)))
        for lease in worthless:
            del self._leases[lease]
        self._kept -= len(worthless)
        return reserved

    async def wait(self) -> None:
        """Wait until a message may be ready."""
        await self._ready.wait()

    async def settle(self, leases: Sequence[str]) -> list[bool]:
        """Delete messages in one transaction."""
        found = await self._in_thread(lambda: self._delete(leases))
        self._kept -= sum(found)
        for lease in leases:
            self._leases.pop(lease, None)
        return found

    async def renew(self, leases: Sequence[str]) -> list[bool]:
        """Begin the visibility timeout anew."""
        until_ms = self._clock.now_ms() + round(self.visibility_s * 1000)
        found = await self._in_thread(lambda: self._prolong(leases, until_ms))
        until = self._clock.monotonic() + self.visibility_s
        self._leases.update({lease: until for lease, known in zip(leases, found, strict=True) if known})
        return found

    async def release(self, lease: str, delay_s: float = 0.0) -> bool:
        """Give a message back."""
        visible_ms = self._clock.now_ms() + round(delay_s * 1000)
        found = await self._in_thread(lambda: self._hide(lease, visible_ms, ready=delay_s <= 0))
        self._leases.pop(lease, None)
        self._ready.set()
        return found

    async def backlog(self) -> Backlog:
        """What waits: counted as it comes and goes, for a look at a long queue takes long."""
        heads = await self._in_thread(self._heads)
        return Backlog(max(0, self._kept - len(self._leases)), oldest(heads))

    async def close(self) -> None:
        """Close the file."""
        if self._timer is not None:
            self._timer.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)  # what nobody waits for is given back first
        await self._in_thread(self._db.close)
        self._thread.end()

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that somebody may have stopped waiting for; :meth:`close` still does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _give_back(self, taking: asyncio.Task[tuple[list[Row], int | None]]) -> None:
        """Nobody waits any more for what was just reserved: it returns at once."""
        if taking.cancelled() or taking.exception() is not None:
            return
        for lease, _, _ in taking.result()[0]:
            self._start(self.release(lease))

    def _look_when_due(self, hidden_s: float | None) -> None:
        """Nothing is ready: have :meth:`wait` end when the next hidden message is due."""
        now = self._clock.monotonic()
        due = [now + _LOOK_AGAIN_S, *self._leases.values()]
        if hidden_s is not None:
            due.append(now + max(0.0, hidden_s))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(min(due), self._ready.set)

    # -- the thread's side ----------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Work; a cancellation does not take back what was asked for, the caller only stops waiting."""
        try:
            return await self._thread.do(work)
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"queue: {exc}") from exc

    def _open(self, now_ms: int) -> list[tuple[str, float]]:
        """Open the file; the leases of an earlier run, with the seconds that are left of each."""
        if self._path != _MEMORY:
            _check_file(Path(self._path))
        try:
            self._db = sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, check_same_thread=False)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SYNCED)
            self._db.executescript(_SCHEMA)
            if "call_id" not in {name for _, name, *_ in self._db.execute("PRAGMA table_info(messages)")}:
                self._db.execute(_ADD_CALL_ID)
            self._db.execute(_ONE_OF_EACH_CALL)
            rows = self._db.execute("SELECT lease, visible_ms FROM messages WHERE lease IS NOT NULL").fetchall()
            self._kept = self._db.execute("SELECT count(*) FROM messages").fetchone()[0]
        except sqlite3.OperationalError as exc:
            is_held = "locked" in str(exc)
            text = "another process uses it; stop that, or set FN_MQ_URL to another file" if is_held else str(exc)
            raise StartUpError(f"{self._path}: cannot open the queue: {text}") from exc
        except sqlite3.DatabaseError as exc:
            raise StartUpError(f"{self._path}: this file is no queue of Hearth's: {exc}") from exc
        return [(lease, (visible_ms - now_ms) / 1000) for lease, visible_ms in rows]

    def _insert(self, rows: list[tuple[int, bool, int, bytes, str]]) -> int:
        """How many of them were not there yet."""
        before = self._db.total_changes
        with self._db:
            self._db.executemany(_INSERT, rows)
        return self._db.total_changes - before

    def _take_unsynced(self, limit: int, expired: list[str], now_ms: int) -> tuple[list[Row], int | None]:
        """Reserve without waiting for the disk: a call is about to start."""
        self._db.executescript(_UNSYNCED)
        try:
            return self._take(limit, expired, now_ms)
        finally:
            self._db.executescript(_SYNCED)

    def _take(self, limit: int, expired: list[str], now_ms: int) -> tuple[list[Row], int | None]:
        """Reserve; and when the next of the hidden messages is due, as wall time."""
        until_ms = now_ms + round(self.visibility_s * 1000)
        suffix = f".{self._run}.{next(self._numbers)}"
        with self._db:
            self._db.executemany(
                "UPDATE messages SET ready = 1, lease = NULL WHERE lease = ?", [(lease,) for lease in expired]
            )
            self._db.execute(
                "UPDATE messages SET ready = 1 WHERE ready = 0 AND lease IS NULL AND visible_ms <= ?", (now_ms,)
            )
            rows = self._db.execute(
                "SELECT seq, deliveries, call FROM messages WHERE ready = 1 ORDER BY priority DESC, seq LIMIT ?",
                (limit,),
            ).fetchall()
            # Few statements: after each the thread waits for its turn among those that want the interpreter.
            self._db.execute(
                "UPDATE messages SET ready = 0, visible_ms = ?, lease = seq || ?, deliveries = deliveries + 1"
                f" WHERE seq IN ({_marks(rows)})",
                (until_ms, suffix, *[seq for seq, _, _ in rows]),
            )
            next_ms = self._db.execute(
                "SELECT min(visible_ms) FROM messages WHERE ready = 0 AND lease IS NULL"
            ).fetchone()[0]
        return [(f"{seq}{suffix}", deliveries + 1, data) for seq, deliveries, data in rows], next_ms

    def _heads(self) -> list[bytes]:
        """The first message of each priority that could be taken."""
        query = "SELECT call FROM messages WHERE ready = 1 AND priority = ? ORDER BY seq LIMIT 1"
        return [data for priority in PRIORITIES for (data,) in self._db.execute(query, (priority,))]

    def _delete(self, leases: Sequence[str]) -> list[bool]:
        with self._db:
            gone = self._db.execute(f"DELETE FROM messages WHERE lease IN ({_marks(leases)})", tuple(leases)).rowcount
            if gone == len(leases):
                return [True] * gone
            self._db.rollback()  # which of them are not current can only be seen one by one
            return [self._db.execute("DELETE FROM messages WHERE lease = ?", (lease,)).rowcount > 0 for lease in leases]

    def _prolong(self, leases: Sequence[str], until_ms: int) -> list[bool]:
        with self._db:
            return [
                self._db.execute("UPDATE messages SET visible_ms = ? WHERE lease = ?", (until_ms, lease)).rowcount > 0
                for lease in leases
            ]

    def _hide(self, lease: str, visible_ms: int, *, ready: bool) -> bool:
        with self._db:
            changed = self._db.execute(
                "UPDATE messages SET ready = ?, lease = NULL, visible_ms = ? WHERE lease = ?",
                (ready, visible_ms, lease),
            )
            return changed.rowcount > 0


class _Here:
    """Works at once, in the thread that asks: in memory that takes less than a hand-over to another one."""

    async def do(self, work: Callable[[], T]) -> T:
        """Done when this returns."""
        return work()

    def end(self) -> None:
        """There is nothing to wait for."""


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _check_file(path: Path) -> None:
    """Refuse what is not ours, an old Bolt file above all, before anything could write to it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StartUpError(f"{path}: cannot open the queue: {exc.strerror}") from exc
    if head and head != _MAGIC:
        raise StartUpError(
            f"{path}: this is no queue of Hearth's (a Bolt file of Fn cannot be read); "
            "let Fn empty it, then point FN_MQ_URL to another file"
        )
