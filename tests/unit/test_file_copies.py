"""Copies of SQLite's files while somebody writes to them: each is the file at one moment."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.waiting import until

from hearth.models.errors import StoreUnavailable
from hearth.queues import file_copy as queue_copy
from hearth.sql import file_copy as database_copy

#: Holds the queue's file as a node does; takes and puts messages, always ten in all, until its input ends.
WRITER = """
import sys, threading
from hearth.queues.message_file import MessageFile, NewMessage
file = MessageFile(sys.argv[1])
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
size, number = int(sys.argv[2]), 0
def put(count):
    global number
    rows = []
    for _ in range(count):
        number += 1
        rows.append(NewMessage(0, True, 0, bytes([number % 256]) * size, str(number), "a"))
    file.insert(rows)
put(10)
print("ready", flush=True)
while not ended.is_set():
    (leases, _) = file.take(1, [], 0, 10**15, ())
    put(1)
    file.delete([lease for lease, _, _ in leases])
file.close()
"""


def test_a_copy_of_a_database_has_nothing_that_was_written_after_its_moment(tmp_path: Path) -> None:
    path, to = tmp_path / "fn.db", tmp_path / "copy.db"
    with contextlib.closing(sqlite3.connect(path)) as made, made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE rows (n)")
        made.executemany("INSERT INTO rows VALUES (?)", [(n,) for n in range(5000)])
    begun = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as other, other:
            begun.set()
            other.execute("DELETE FROM rows")

    writer = threading.Thread(target=write)

    def while_locked() -> None:
        writer.start()
        begun.wait()
        with contextlib.closing(sqlite3.connect(path)) as reader:
            assert reader.execute("SELECT count(*) FROM rows").fetchone() == (5000,)

    database_copy.copy_file(path, to, while_locked)
    writer.join()
    with contextlib.closing(sqlite3.connect(to)) as copy, contextlib.closing(sqlite3.connect(path)) as source:
        assert copy.execute("SELECT count(*) FROM rows").fetchone() == (5000,)
        assert source.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_a_file_that_is_no_database_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "fn.db"
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(StoreUnavailable, match=r"cannot copy the database: file is not a database"):
        database_copy.copy_file(path, tmp_path / "copy.db")
    with pytest.raises(StoreUnavailable, match=r"cannot copy the queue: file is not a database"):
        queue_copy.copy_file(path, tmp_path / "copy.mq")


@contextlib.contextmanager
def written_queue(path: Path, size: int) -> Iterator[None]:
    """A queue that another process changes all the time; each message has that many equal bytes."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            yield
        finally:
            assert writer.stdin is not None
            writer.stdin.close()
        assert writer.wait() == 0


def let_log_start_again(log: Path) -> None:
    before = log.read_bytes()[:32]
    assert until(lambda: log.read_bytes()[:32] != before)


def test_each_copy_of_a_queue_that_changes_is_whole(tmp_path: Path) -> None:
    """The log starts again many times meanwhile: after a thousand pages."""
    path = tmp_path / "fn.mq"
    with written_queue(path, 20_000):
        seen = set()
        for number in range(25):
            to = tmp_path / f"{number}.mq"
            queue_copy.copy_file(path, to)
            assert not to.with_name(f"{to.name}-wal").exists()
            with contextlib.closing(sqlite3.connect(to)) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                messages = copy.execute("SELECT call FROM messages").fetchall()
            assert len(messages) in (10, 11)
            assert all(len(set(message)) == 1 and len(message) == 20_000 for (message,) in messages)
            seen.add(tuple(messages))
            let_log_start_again(path.with_name("fn.mq-wal"))
        assert len(seen) > 5


def test_a_copy_whose_log_began_again_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, to, log = tmp_path / "fn.mq", tmp_path / "copy.mq", tmp_path / "fn.mq-wal"
    plain, copied = shutil.copyfile, []

    def copyfile(source: Path, target: Path) -> None:
        """Copy; the first time the log begins again between its file and itself."""
        plain(source, target)
        copied.append(source.name)
        if len(copied) == 1:
            let_log_start_again(log)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with written_queue(path, 20_000):
        queue_copy.copy_file(path, to)
    assert len(copied) > 2
    with contextlib.closing(sqlite3.connect(to)) as copy:
        assert copy.execute("SELECT count(*) FROM messages").fetchone() in ((10,), (11,))


def test_a_queue_that_nobody_has_open_is_copied(tmp_path: Path) -> None:
    path, to = tmp_path / "fn.mq", tmp_path / "copy.mq"
    with written_queue(path, 10):
        pass
    queue_copy.copy_file(path, to)
    with contextlib.closing(sqlite3.connect(to)) as copy:
        assert copy.execute("SELECT count(*) FROM messages").fetchone() in ((10,), (11,))
