"""A program of another user that wants to pass for a node: it has a port, and a folder that it locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

UID = 54321
BODY = b'{"error": {"message": "who are you?"}}'


@contextlib.contextmanager
def impostor_node(
    folder: Path, seen: Path, status: str = "401 Unauthorized", *, path: Path | None = None
) -> Iterator[str]:
    """Start it; yields its URL. It answers everything alike, and writes the heads of requests to ``seen``.

    Args:
        folder: Its own from now on: what looks like a data folder.
        seen: A new file.
        status: Of its answers.
        path: Of a Unix socket, in its folder, instead of a port.
    """
    if os.geteuid() != 0:
        pytest.skip("a process of another user needs root")
    os.chown(folder, UID, UID)
    command = [sys.executable, __file__, str(folder), str(seen), status, str(path or "")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def listener_at(path: str) -> socket.socket:
    if not path:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def main(folder: str, seen: str, status: str, path: str) -> None:
    head = f"HTTP/1.1 {status}\r\nHearth-Version: 1\r\nHearth-Driver: process\r\nHearth-Node: full\r\n".encode()
    head += b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with open(seen, "wb", buffering=0) as heads:
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        with listener_at(path) as listener, open(f"{folder}/hearth.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(f"unix:{path}" if path else f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
            while True:
                connection, _ = listener.accept()
                with connection:
                    heads.write(connection.recv(65536))
                    connection.sendall(head + BODY)


if __name__ == "__main__":
    main(*sys.argv[1:])
