"""A private Redis: a process of its own in a folder of its own, which a test may kill and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.processes import spawn
from tests.support.servers import free_port

PASSWORD = "p@ss:w/rd"
QUOTED_PASSWORD = "p%40ss%3Aw%2Frd"


class RedisServer:
    """A Redis that forgets nothing: every write is synced before it is answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, prefix: str = "") -> str:
        """Its address, as a setting."""
        return f"redis://default:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{prefix}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "requirepass": PASSWORD}
        durable = {"appendonly": "yes", "appendfsync": "always", "loglevel": "warning"}
        arguments = [text for name, value in {**settings, **durable}.items() for text in (f"--{name}", str(value))]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = spawn(["redis-server", *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """End it without a warning."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It is there, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether it does."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        """A client of the test's own."""
        return redis.Redis(port=self.port, password=PASSWORD)


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Start one; leaving it kills it. Without a redis-server the test is skipped, but fails where CI=true."""
    if shutil.which("redis-server") is None:
        message = "no redis-server; tools/engines.sh installs one"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
