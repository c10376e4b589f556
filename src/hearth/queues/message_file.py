"""The messages of the embedded queue in one SQLite file, or in memory. Every method blocks.

The file is synced whenever a call is accepted or acknowledged: what was answered survives a loss of power. A
reservation need not, because its holder is lost as well.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import sqlite3
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hearth.host import private_files
from hearth.host.open_file import OpenFile
from hearth.models.errors import StartUpError
from hearth.queues.base import MAX_RESERVED_BYTES, PRIORITIES
from hearth.queues.messages import HEADS_AT_ONCE, MAX_HEAD_BYTES, Row
from hearth.queues.turns import Turns

MEMORY: Final = ":memory:"
#: Each commit waits for the disk, and sometimes copies the log into the file.
_SYNCED: Final = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000"
#: No commit waits for the disk; the next synced one includes it.
_UNSYNCED: Final = "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0"
#: SQLite's number for a file that can return its free pages to the disk, some at a time.
_INCREMENTAL: Final = 2
#: Pages of 4 KiB: those that a start rewrites, and those that stay free for new messages.
_MAX_REWRITTEN_PAGES: Final = 16_384
_FREE_PAGES: Final = 1_024
_MAGIC: Final = b"SQLite format 3\0"
#: Seconds to wait for another process that holds the file.
_LOCK_WAIT_S: Final = 1.0

#: The log of the file has at most 16 MiB after a checkpoint.
_PRAGMAS: Final = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA journal_size_limit = 16777216;
"""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    priority INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    visible_ms INTEGER NOT NULL,
    lease TEXT,
    deliveries INTEGER NOT NULL DEFAULT 0,
    call BLOB NOT NULL,
    call_id TEXT,
    app TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS messages_hidden ON messages (visible_ms) WHERE ready = 0 AND lease IS NULL;
CREATE INDEX IF NOT EXISTS messages_leased ON messages (lease) WHERE lease IS NOT NULL;
CREATE TABLE IF NOT EXISTS probe (at INTEGER NOT NULL);
INSERT INTO probe SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM probe);
"""
#: Files of earlier versions lack the id; their messages have none.
_ADD_CALL_ID: Final = "ALTER TABLE messages ADD COLUMN call_id TEXT"
#: Nor do they have the app: their messages take turns as one app.
_ADD_APP: Final = "ALTER TABLE messages ADD COLUMN app TEXT NOT NULL DEFAULT ''"
_INDEXES: Final = """
CREATE UNIQUE INDEX IF NOT EXISTS messages_call ON messages (call_id);
CREATE INDEX IF NOT EXISTS messages_ready_of_app ON messages (app, priority DESC, seq) WHERE ready = 1;
DROP INDEX IF EXISTS messages_ready;
"""
_INSERT: Final = """
INSERT INTO messages (priority, ready, visible_ms, call, call_id, app) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (call_id) DO NOTHING
"""
_EXPIRE: Final = """
UPDATE messages SET ready = 1, lease = NULL WHERE lease IN (SELECT value FROM json_each(?)) RETURNING app
"""
_SHOW_DUE: Final = """
UPDATE messages SET ready = 1 WHERE ready = 0 AND lease IS NULL AND visible_ms <= ? RETURNING app
"""
#: Finds each app with one step in the index, however many messages it has.
_APPS_READY: Final = """
WITH RECURSIVE apps (app) AS (
    SELECT min(app) FROM messages WHERE ready = 1
    UNION ALL
    SELECT (SELECT min(app) FROM messages WHERE ready = 1 AND app > apps.app) FROM apps WHERE apps.app IS NOT NULL
)
SELECT app FROM apps WHERE app IS NOT NULL
"""
_READY_OF_APP: Final = """
SELECT seq, deliveries, call FROM messages WHERE ready = 1 AND app = ? ORDER BY priority DESC, seq LIMIT ?
"""
_PLACES_OF_APPS: Final = """
SELECT messages.app, messages.seq FROM json_each(?) AS apps JOIN messages ON messages.seq IN (
    SELECT seq FROM messages WHERE ready = 1 AND app = apps.value ORDER BY priority DESC, seq LIMIT ? OFFSET ?
) ORDER BY messages.app, messages.priority DESC, messages.seq
"""
#: In the order of the numbers: a cross join leaves its left side outside.
_AT_PLACES: Final = """
SELECT seq, deliveries, call FROM json_each(?) AS places CROSS JOIN messages ON seq = places.value
"""
_TAKE: Final = """
UPDATE messages SET ready = 0, visible_ms = ?, lease = seq || ?, deliveries = deliveries + 1
WHERE seq IN (SELECT value FROM json_each(?))
"""
_NEXT_DUE: Final = "SELECT min(visible_ms) FROM messages WHERE ready = 0 AND lease IS NULL"
_HEAD: Final = """
SELECT call FROM messages WHERE seq = (
    SELECT min((
        SELECT seq FROM messages WHERE ready = 1 AND app = apps.value AND priority = ? ORDER BY seq LIMIT 1
    )) FROM json_each(?) AS apps
)
"""
_AFTER: Final = "SELECT seq, substr(call, 1, ?) FROM messages WHERE seq > ? ORDER BY seq LIMIT ?"
_BYTES_OF_APPS: Final = "SELECT app, sum(length(call)) FROM messages GROUP BY app"
_BYTES_OF_LEASES: Final = """
SELECT app, sum(length(call)) FROM messages WHERE lease IN (SELECT value FROM json_each(?)) GROUP BY app
"""
_NAMES: Final = "SELECT lease, app, call_id FROM messages WHERE lease IN (SELECT value FROM json_each(?))"
_DELETE_ALL: Final = "DELETE FROM messages WHERE lease IN (SELECT value FROM json_each(?))"
_DISCARD: Final = "DELETE FROM messages WHERE call_id = ? AND lease IS NULL RETURNING app, length(call)"
_DELETE: Final = "DELETE FROM messages WHERE lease = ?"
_PROLONG: Final = "UPDATE messages SET visible_ms = ? WHERE lease = ?"
_HIDE: Final = "UPDATE messages SET ready = ?, lease = NULL, visible_ms = ? WHERE lease = ? RETURNING app"
_REPLACE: Final = """
UPDATE messages SET ready = ?, lease = NULL, visible_ms = ?, call = ? WHERE lease = ? RETURNING app
"""


class NewMessage(NamedTuple):
    """A message as it is inserted."""

    priority: int
    ready: bool
    visible_ms: int
    call: bytes
    call_id: str
    app: str


class MessageFile:
    """Opens the file for this process alone.

    Args:
        path: Of the file; it is created if it is missing.

    Raises:
        StartUpError: Another process holds the file, or it is no queue of Hearth's; it is unchanged.
    """

    def __init__(self, path: str) -> None:
        self._file = None if path == MEMORY else _checked(Path(path))
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._found_turns: Turns | None = None
        self._weights: dict[str, int] = {}
        self._bytes: Counter[str] | None = None
        try:
            self._db = _open(path)
        except sqlite3.OperationalError as exc:
            is_held = "locked" in str(exc)
            text = "another process uses it; stop that, or set FN_MQ_URL to another file" if is_held else str(exc)
            raise StartUpError(f"{path}: cannot open the queue: {text}") from exc
        except sqlite3.DatabaseError as exc:
            raise StartUpError(f"{path}: this file is no queue of Hearth's: {exc}") from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def count(self) -> int:
        """Count all messages."""
        found: int = self._db.execute("SELECT count(*) FROM messages").fetchone()[0]
        return found

    def bytes_of(self, app: str) -> int:
        """Return the bytes of the messages of an app. The first time, this reads the size of each message."""
        if self._bytes is None:
            self._bytes = Counter(dict(self._db.execute(_BYTES_OF_APPS).fetchall()))
        return self._bytes[app]

    def leases(self) -> list[tuple[str, int]]:
        """Return the leases of an earlier run, with the wall time of their end in ms."""
        return self._db.execute("SELECT lease, visible_ms FROM messages WHERE lease IS NOT NULL").fetchall()

    def insert(self, messages: Sequence[NewMessage]) -> int:
        """Insert messages whose call has none; return how many."""
        self._check_file()
        before = self._db.total_changes
        with self._db:
            self._db.executemany(_INSERT, messages)
        self._join(message.app for message in messages if message.ready)
        inserted = self._db.total_changes - before
        if inserted < len(messages):
            self._bytes = None  # which of them is not known
        elif self._bytes is not None:
            for message in messages:
                self._bytes[message.app] += len(message.call)
        return inserted

    def take(
        self, limit: int, expired: Sequence[str], now_ms: int, until_ms: int, without: Collection[str] = ()
    ) -> tuple[list[Row], int | None]:
        """Reserve messages, without waiting for the disk: a call is about to start.

        Args:
            limit: How many at most.
            without: Apps whose messages stay.
            expired: Leases that have ended: their messages can be reserved again.
            now_ms: The wall time.
            until_ms: The wall time when the reservations end.

        Returns:
            The messages, and when the next of the hidden ones is due, as wall time.
        """
        suffix = f".{self._run}.{next(self._numbers)}"
        self._db.executescript(_UNSYNCED)
        try:
            with self._db:
                # Few statements: after each of them the thread waits until the event loop leaves it the interpreter.
                if expired:
                    self._join(app for (app,) in self._db.execute(_EXPIRE, (_json(expired),)))
                self._join(app for (app,) in self._db.execute(_SHOW_DUE, (now_ms,)))
                rows = self._ready(limit, without)
                self._db.execute(_TAKE, (until_ms, suffix, _json([seq for seq, _, _ in rows])))
                next_ms: int | None = self._db.execute(_NEXT_DUE).fetchone()[0]
        except BaseException:
            self._found_turns = None  # its turns may be those of messages that were not taken
            raise
        finally:
            self._db.executescript(_SYNCED)
        return [(f"{seq}{suffix}", deliveries + 1, data) for seq, deliveries, data in rows], next_ms

    def heads(self) -> list[bytes]:
        """Return the first message of each priority that could be taken."""
        apps = _json(self._turns.line())
        return [data for priority in PRIORITIES for (data,) in self._db.execute(_HEAD, (priority, apps))]

    def after(self, last: int) -> list[tuple[int, bytes]]:
        """Return some messages that arrived after one, without their large payloads."""
        return self._db.execute(_AFTER, (MAX_HEAD_BYTES, last, HEADS_AT_ONCE)).fetchall()

    def names(self, leases: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return the app and the id of the call of each lease."""
        found = self._db.execute(_NAMES, (_json(leases),))
        return {lease: (app, call_id or "") for lease, app, call_id in found}

    def delete(self, leases: Sequence[str]) -> list[bool]:
        """Delete reserved messages; return for each lease whether it was current."""
        with self._counted_out(leases), self._db:
            gone = self._db.execute(_DELETE_ALL, (_json(leases),)).rowcount
            if gone == len(leases):
                return [True] * gone
            self._db.rollback()  # one statement each shows which of them are not current
            return [self._db.execute(_DELETE, (lease,)).rowcount > 0 for lease in leases]

    def discard(self, call_id: str) -> bool:
        """Delete the message of a call that nobody has reserved; return whether there was one."""
        with self._db:
            gone = self._db.execute(_DISCARD, (call_id,)).fetchall()
        if self._bytes is not None:
            self._bytes.subtract(dict(gone))
        return bool(gone)

    def prolong(self, leases: Sequence[str], until_ms: int) -> list[bool]:
        """Let leases end at another time; return for each whether it was current."""
        with self._db:
            return [self._db.execute(_PROLONG, (until_ms, lease)).rowcount > 0 for lease in leases]

    def hide(self, lease: str, visible_ms: int, *, ready: bool) -> bool:
        """Give a message back; return whether the lease was current."""
        with self._db:
            apps = [app for (app,) in self._db.execute(_HIDE, (ready, visible_ms, lease))]
        if ready:
            self._join(apps)
        return bool(apps)

    def replace(self, lease: str, visible_ms: int, call: bytes, *, ready: bool) -> bool:
        """Give back another message in the place of one; return whether the lease was current."""
        self._check_file()
        with self._counted_out([lease]), self._db:
            apps = [app for (app,) in self._db.execute(_REPLACE, (ready, visible_ms, call, lease))]
        if self._bytes is not None:
            self._bytes.update(dict.fromkeys(apps, len(call)))
        if ready:
            self._join(apps)
        return bool(apps)

    def probe(self) -> None:
        """Write to the file: a full disk or a deleted file shows here."""
        self._check_file()
        self._db.executescript(_UNSYNCED)
        try:
            self._db.execute("UPDATE probe SET at = at + 1")
            self._db.commit()
        finally:
            self._db.executescript(_SYNCED)

    def shrink(self) -> None:
        """Return a few free pages to the disk; other work waits meanwhile."""
        if self._is_large():
            self._db.executescript("PRAGMA incremental_vacuum(64)")  # execute() would return one page

    def shrink_more(self) -> None:
        """Return many free pages, and shorten the file itself by copying its log into it."""
        if self._is_large():
            self._db.executescript("PRAGMA incremental_vacuum(4096)")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextlib.contextmanager
    def _counted_out(self, leases: Sequence[str]) -> Iterator[None]:
        """Subtract the bytes of leased messages, which go inside."""
        if self._bytes is None:
            yield
            return
        gone = dict(self._db.execute(_BYTES_OF_LEASES, (_json(leases),)).fetchall())
        yield
        self._bytes.subtract(gone)

    def _is_large(self) -> bool:
        free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return free > _FREE_PAGES

    # -- turns ----------------------------------------------------------------------------------------------------

    def weigh(self, app: str, weight: int) -> None:
        """Give an app so many turns in a round."""
        if weight == 1:
            self._weights.pop(app, None)
        else:
            self._weights[app] = weight

    @property
    def _turns(self) -> Turns:
        if self._found_turns is None:
            self._found_turns = Turns()
            self._found_turns.weights = self._weights
            self._join(app for (app,) in self._db.execute(_APPS_READY))
        return self._found_turns

    def _join(self, apps: Iterable[str]) -> None:
        turns = self._turns
        for app in apps:
            turns.join(app)

    def _ready(self, limit: int, without: Collection[str]) -> list[tuple[int, int, bytes]]:
        line = self._turns.line(without)
        if len(line) > 1:
            return self._ready_of_many(line, limit, without)
        if (app := self._turns.next(without)) is None:
            return []
        rows, is_full = self._bounded(_READY_OF_APP, (app, limit))
        if is_full or len(rows) == limit:
            self._turns.served(app)
        else:
            self._turns.leave(app)
        return rows

    def _ready_of_many(self, line: list[str], limit: int, without: Collection[str]) -> list[tuple[int, int, bytes]]:
        before = self._turns.copy()
        chosen = self._in_turn(line, limit, without)
        rows, _ = self._bounded(_AT_PLACES, (_json(chosen),))
        if len(rows) < len(chosen):  # they are large: only those that are taken had a turn
            self._found_turns = before
            self._in_turn(line, len(rows), without)
        return rows

    def _in_turn(self, line: list[str], limit: int, without: Collection[str]) -> list[int]:
        """Return the places of messages of several apps, one of each app in each round."""
        turns, places = self._turns, _Places(self._db, line[:limit], -(-limit // len(line)))
        chosen: list[int] = []
        while len(chosen) < limit and (app := turns.next(without)) is not None:
            if (place := places.next(app, limit - len(chosen))) is None:
                turns.leave(app)
            else:
                chosen.append(place)
                turns.served(app)
        return chosen

    def _bounded(self, query: str, values: tuple[str | int, ...]) -> tuple[list[tuple[int, int, bytes]], bool]:
        """Return the first messages that a query finds, and whether their size ended the search."""
        rows: list[tuple[int, int, bytes]] = []
        size = 0
        found = self._db.execute(query, values)
        for row in found:
            rows.append(row)
            size += len(row[2])
            if size >= MAX_RESERVED_BYTES:
                break
        found.close()
        return rows, size >= MAX_RESERVED_BYTES

    def _check_file(self) -> None:
        if self._file is not None:
            self._file.check()


class _Places:
    """The places of ready messages of each app, in the order of the app.

    Args:
        db: Holds the messages.
        apps: Whose places are read at once.
        count: How many of each.
    """

    def __init__(self, db: sqlite3.Connection, apps: Sequence[str], count: int) -> None:
        self._db = db
        self._places: dict[str, deque[int]] = {}
        self._read: dict[str, int] = {}
        self._load(apps, count)

    def next(self, app: str, count: int) -> int | None:
        """Return the next place of an app; read ``count`` of them if none is left. ``None`` if it has no more."""
        places = self._places.get(app)
        if not places and self._read.get(app, 0) >= 0:
            self._load([app], count)
            places = self._places[app]
        return places.popleft() if places else None

    def _load(self, apps: Sequence[str], count: int) -> None:
        for app in apps:
            self._places[app] = deque()
        offset = self._read.get(apps[0], 0)
        for app, place in self._db.execute(_PLACES_OF_APPS, (_json(apps), count, offset)):
            self._places[app].append(place)
        for app in apps:  # an app with fewer places has no more
            self._read[app] = offset + count if len(self._places[app]) == count else -1


def _checked(path: Path) -> OpenFile:
    """Refuse another program's file, such as an old Bolt file, before anything could write to it."""
    try:
        private_files.make_file(path)
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as exc:
        raise StartUpError(f"{path}: cannot open the queue: {exc.strerror}") from exc
    if head and head != _MAGIC:
        raise StartUpError(
            f"{path}: this is no queue of Hearth's (a Bolt file of Fn cannot be read); "
            "let Fn empty it, then point FN_MQ_URL to another file"
        )
    return OpenFile(path)


def _open(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_LOCK_WAIT_S, check_same_thread=False)
    db.executescript(_PRAGMAS)
    db.executescript(_SYNCED)
    db.executescript(_SCHEMA)
    columns = {name for _, name, *_ in db.execute("PRAGMA table_info(messages)")}
    for column, add in (("call_id", _ADD_CALL_ID), ("app", _ADD_APP)):
        if column not in columns:
            db.execute(add)
    db.executescript(_INDEXES)
    if path != MEMORY:
        _let_shrink(db)
    return db


def _let_shrink(db: sqlite3.Connection) -> None:
    """Rewrite a file of an earlier version as one that returns space to the disk, if that takes only a moment."""
    kind, pages, free = [
        db.execute(pragma).fetchone()[0]
        for pragma in ("PRAGMA auto_vacuum", "PRAGMA page_count", "PRAGMA freelist_count")
    ]
    if kind != _INCREMENTAL and pages - free <= _MAX_REWRITTEN_PAGES:
        db.execute("VACUUM")


def _json(values: Sequence[str] | Sequence[int]) -> str:
    return msgspec.json.encode(values).decode()
