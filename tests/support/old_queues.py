"""Queues as version 0.1 left them: messages have no app and no call beside them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import redis

_SCHEMA = """
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    priority INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    visible_ms INTEGER NOT NULL,
    lease TEXT,
    deliveries INTEGER NOT NULL DEFAULT 0,
    call BLOB NOT NULL
);
CREATE INDEX messages_ready ON messages (priority DESC, seq) WHERE ready = 1;
CREATE INDEX messages_hidden ON messages (visible_ms) WHERE ready = 0 AND lease IS NULL;
CREATE INDEX messages_leased ON messages (lease) WHERE lease IS NOT NULL;
"""


def write_file(path: Path, messages: Sequence[bytes]) -> None:
    """Create the embedded queue with messages that are ready."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript(_SCHEMA)
        insert = "INSERT INTO messages (priority, ready, visible_ms, call) VALUES (0, 1, 0, ?)"
        db.executemany(insert, [(message,) for message in messages])


def write_redis(client: redis.Redis, prefix: str, messages: Sequence[bytes]) -> None:
    """Store messages that are ready, each named by its priority, its place and its push."""
    for place, message in enumerate(messages, 1):
        client.incr(f"{prefix}places")
        client.hset(f"{prefix}calls", mapping={f"0:{place}:push-{place}": message})
        client.zadd(f"{prefix}ready:0", {f"0:{place}:push-{place}": place})
