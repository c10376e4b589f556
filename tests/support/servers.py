"""Real servers of a test's own: PostgreSQL, MariaDB, an S3-compatible store; in a temporary folder, on a free port."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import spawn

_SLOW = 60.0
#: The servers refuse to run as root; any other user will do.
_USER = "nobody"


class Server:
    """A server process that a test may stop, freeze and start again on the same port.

    Args:
        command: What runs it.
        folder: Where its data is.
        port: Where it listens.
        answers: Whether it serves; the port alone may be open before that.
    """

    def __init__(self, command: Sequence[str | Path], folder: Path, port: int, answers: Callable[[], bool]) -> None:
        self._command = [str(part) for part in command]
        self._folder = folder
        self._answers = answers
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, with further options, and wait until it serves.

        What is left of a killed one may keep it from that for a moment.
        """
        deadline = time.monotonic() + _SLOW
        self._spawn(*options)
        while not self._answers():
            if time.monotonic() > deadline:
                pytest.fail(f"{self._command[0]} does not start: {(self._folder / 'server.log').read_text()[-2000:]}")
            if self._process is not None and self._process.poll() is not None:
                self._spawn(*options)
            time.sleep(0.02)

    def _spawn(self, *options: str) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = spawn(
                [*self._command, *options],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                **_unprivileged(),
            )

    def send(self, number: int) -> None:
        """Send a signal to it and to the processes that it has started."""
        assert self._process is not None
        family = [self._process.pid]
        for pid in family:  # grows as it goes
            with contextlib.suppress(FileNotFoundError):
                family += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it."""
        if self._process is not None:
            self.send(number)
            self._process.wait(_SLOW)
            self._process = None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def postgres(folder: Path, *, durable: bool = False) -> Iterator[Server]:
    """PostgreSQL; the user is ``fn``, the password ``pass``."""
    bin_folder = Path(need(*sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), reverse=True), "postgres")).parent
    data, port = folder / "data", free_port()
    _own(folder)
    secret = folder / "password"
    secret.write_text("pass")
    _own(folder)
    _run([bin_folder / "initdb", "-D", data, "-U", "fn", "-A", "md5", f"--pwfile={secret}", "-E", "UTF8", "-N"], folder)
    quick = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=64MB")
    speed = [] if durable else [word for setting in quick for word in ("-c", setting)]
    command: list[str | Path] = [
        bin_folder / "postgres",
        "-D",
        data,
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
        "-k",
        folder,
        *speed,
    ]
    ready: list[str | Path] = [bin_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    server = Server(command, folder, port, lambda: subprocess.run(ready).returncode == 0)
    with _running(server):
        yield server


@contextlib.contextmanager
def mariadb(folder: Path, *, durable: bool = False) -> Iterator[Server]:
    """MariaDB; the user is ``fn``, the password ``pass``, which may make databases."""
    program, install = need("mariadbd", "/usr/sbin/mariadbd"), need("mariadb-install-db")
    data, port = folder / "data", free_port()
    (folder / "init.sql").write_text(
        "CREATE USER IF NOT EXISTS fn@'127.0.0.1' IDENTIFIED BY 'pass';\n"
        "CREATE DATABASE IF NOT EXISTS fn;\n"
        "GRANT ALL ON *.* TO fn@'127.0.0.1';\n"
        "REVOKE READ ONLY ADMIN ON *.* FROM fn@'127.0.0.1';\n"  # it may not write where others may not
    )
    _own(folder)
    # A server that starts removes temporary tables from its folder for them, also those of a neighbour.
    places = ["--no-defaults", f"--datadir={data}", f"--tmpdir={folder}"]
    _run([install, *places, "--skip-test-db", "--auth-root-authentication-method=normal"], folder)
    speed = [] if durable else ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
    command = [
        program,
        *places,
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder}/mysql.sock",
        f"--pid-file={folder}/mysql.pid",
        f"--init-file={folder}/init.sql",
        "--skip-name-resolve",
        *speed,
    ]
    ping = [need("mariadb-admin"), "--no-defaults", "-h127.0.0.1", f"-P{port}", "-ufn", "-ppass", "ping", "--silent"]
    server = Server(command, folder, port, lambda: subprocess.run(ping, capture_output=True).returncode == 0)
    with _running(server):
        yield server


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[Server]:
    """An S3-compatible store; the access key is ``key``, the secret ``se/cr+et``."""
    program = need(str(Path(sys.executable).with_name("rclone")), "rclone")
    (folder / "buckets").mkdir()
    _own(folder)
    port = free_port()
    address = f"127.0.0.1:{port}"
    quiet: list[str | Path] = ["--config", folder / "none", "--cache-dir", folder / "cache"]
    command: list[str | Path] = [
        program,
        "serve",
        "s3",
        *quiet,
        "--auth-key",
        "key,se/cr+et",
        "--addr",
        address,
        folder / "buckets",
    ]
    server = Server(command, folder, port, lambda: _listens(port))
    with _running(server):
        yield server


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def need(*names: str) -> str:
    """Return the path of a program, the first of these that is there; without one, the test is skipped."""
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    message = f"{names[-1]} is missing; tools/engines.sh installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **_unprivileged())
    assert done.returncode == 0, done.stderr + done.stdout


def _unprivileged() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam(_USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _own(folder: Path) -> None:
    """Give a folder to the user that the servers run as, and let that user come to it."""
    if os.getuid() != 0:
        return
    entry = pwd.getpwnam(_USER)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    for parent in folder.parents:
        if parent != parent.parent and parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


@contextlib.contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Server]:
    """A Prometheus with this configuration."""
    program = need("prometheus")
    (folder / "prometheus.yml").write_text(config)
    _own(folder)
    port = free_port()
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/series",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    server = Server(command, folder, port, lambda: _listens(port))
    with _running(server):
        yield server
