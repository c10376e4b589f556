"""Queues whose time passes when a test says so."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from tests.support import old_queues
from tests.support.clock import FakeClock
from tests.support.redis_server import RedisServer


class QueueAtHand:
    """One place where calls are kept; it can be opened again and again.

    Attributes:
        clock: The clock of the queues that :meth:`open` opens.
    """

    def __init__(self, url: str, clock: FakeClock) -> None:
        self.url = url
        self.clock = clock

    async def open(self) -> Queue:
        """A queue there."""
        return await open_queue(self.url, self.clock)

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def garble(self, data: bytes) -> None:
        """Replace the oldest message by these bytes; the queue is closed meanwhile."""
        raise NotImplementedError

    def write_as_0_1(self, messages: Sequence[bytes]) -> None:
        """Store messages as version 0.1 did, before the queue is opened for the first time."""
        raise NotImplementedError


class MemoryAtHand(QueueAtHand):
    """The queue that ends with the process."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("memory://", clock)


class BoltAtHand(QueueAtHand):
    """The queue in a file."""

    def __init__(self, clock: FakeClock, folder: Path) -> None:
        self.file = folder / "deep" / "fn.mq"
        super().__init__(f"bolt://{self.file}", clock)

    def as_a_crash_leaves_it(self, folder: Path) -> BoltAtHand:
        """The queue that its file and log, as they are now, hold."""
        shutil.copytree(self.file.parent, folder / self.file.parent.name)
        return BoltAtHand(self.clock, folder)

    def garble(self, data: bytes) -> None:
        """Through SQLite."""
        import sqlite3

        with sqlite3.connect(self.file) as db:
            db.execute("UPDATE messages SET call = ? WHERE seq = (SELECT min(seq) FROM messages)", (data,))
        db.close()

    def write_as_0_1(self, messages: Sequence[bytes]) -> None:
        """Create the file."""
        old_queues.write_file(self.file, messages)


class NamedRedis:
    """The tester's own Redis, which ``REDIS_URL`` names; each run has keys of its own, which are removed at its end."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self.run = f"hearth-{os.urandom(6).hex()}/"

    def url(self, prefix: str = "") -> str:
        return f"{self._address}/{self.run}{prefix}"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self._address)

    def clear(self) -> None:
        with self.client() as client:
            for key in client.scan_iter(f"/{self.run}*"):
                client.delete(key)


class RedisAtHand(QueueAtHand):
    """The queue in Redis. Redis has its own clock: instead of turning that, what is stored is moved into the past."""

    def __init__(self, clock: FakeClock, server: RedisServer | NamedRedis, prefix: str) -> None:
        super().__init__(server.url(prefix), clock)
        self._server = server
        self._prefix = f"{urlsplit(server.url(prefix)).path}hearth:"

    async def advance(self, seconds: float) -> None:
        """Move all instants back, and our own clock, which has the timers, ahead."""
        await asyncio.to_thread(self._shift, -seconds * 1000)
        await super().advance(seconds + 0.01)

    def _shift(self, milliseconds: float) -> None:
        with self._server.client() as client:
            for name in ("delayed", "leased"):
                for member in client.zrange(self._prefix + name, 0, -1):
                    client.zincrby(self._prefix + name, milliseconds, member)

    def garble(self, data: bytes) -> None:
        """Through Redis."""
        with self._server.client() as client:
            names = client.hkeys(self._prefix + "calls")
            oldest = min(names, key=lambda name: int(name.split(b":")[1]))
            client.hset(self._prefix + "calls", oldest, data)

    def write_as_0_1(self, messages: Sequence[bytes]) -> None:
        """Through Redis."""
        with self._server.client() as client:
            old_queues.write_redis(client, self._prefix, messages)


_numbers = iter(range(1_000_000))


def queue_at_hand(kind: str, request: pytest.FixtureRequest, folder: Path) -> QueueAtHand:
    """A new, empty one of this kind; only its own backend is started."""
    clock = FakeClock()
    if kind == "memory":
        return MemoryAtHand(clock)
    if kind == "bolt":
        return BoltAtHand(clock, folder)
    if kind == "named redis":
        own = NamedRedis(os.environ["REDIS_URL"])
        request.addfinalizer(own.clear)
        return RedisAtHand(clock, own, f"{next(_numbers)}/")
    server: RedisServer = request.getfixturevalue("redis_server")
    return RedisAtHand(clock, server, f"{next(_numbers)}/")
