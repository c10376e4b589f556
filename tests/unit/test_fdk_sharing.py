"""The kit with several calls at once: as tasks or in threads, each with its own answer and its own lines."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.waiting import until

N = 8
ASYNC = """
import asyncio
from hearth_fdk import Context, function
gate, inside = asyncio.Event(), []

@function
async def meet(ctx: Context, body: str) -> str:
    print("start", body)
    if body == "hold":
        try:
            await asyncio.sleep(3600)
        finally:
            print("cancelled", body)
    inside.append(body)
    if len(inside) == 8:
        gate.set()
    await gate.wait()
    print("end", body)
    return body
"""
THREADS = """
import threading
from hearth_fdk import Context, function
gate = threading.Barrier(8)

@function
def meet(ctx: Context, body: str) -> str:
    print("start", body)
    gate.wait()
    print("end", body)
    return body
"""


class Program:
    """A running function."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "func.py").write_text(source)
        self.path = folder / "lsnr.sock"
        self.log = folder / "log"
        environment = {
            **os.environ,
            "FN_FORMAT": "http-stream",
            "FN_LISTENER": f"unix:{self.path}",
            "FN_CONCURRENCY": str(N),
            "FN_LOGFRAME_NAME": "mark",
            "FN_LOGFRAME_HDR": "Fn-Call-Id",
        }
        command = [sys.executable, "-m", "hearth_fdk", str(folder / "func.py")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def open(self, body: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        head = f"POST /call HTTP/1.1\r\nFn-Call-Id: id-{body}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(f"{head}{body}".encode())
        return connection

    def ask(self, body: str) -> str:
        with self.open(body) as connection:
            return connection.recv(65536).decode().rpartition("\r\n\r\n")[2]


@pytest.mark.parametrize("source", [ASYNC, THREADS], ids=["async", "threads"])
def test_calls_at_once_have_their_own_answers_and_lines(tmp_path: Path, source: str) -> None:
    program = Program(tmp_path, source)
    try:
        assert until(program.path.is_symlink)
        bodies = [str(number) for number in range(N)]
        with ThreadPoolExecutor(N) as pool:
            assert list(pool.map(program.ask, bodies)) == bodies
        lines = program.log.read_text().splitlines()
        assert sorted(lines) == sorted(f"mark=id-{body} {word} {body}" for body in bodies for word in ("start", "end"))
        assert all(re.fullmatch(r"mark=id-\d (start|end) \d", line) for line in lines)
    finally:
        program.process.kill()
        program.process.wait()


def test_an_async_handler_is_cancelled_when_its_connection_ends(tmp_path: Path) -> None:
    program = Program(tmp_path, ASYNC)
    try:
        assert until(program.path.is_symlink)
        with program.open("hold") as held:
            assert until(lambda: "start hold" in program.log.read_text())
            held.shutdown(socket.SHUT_WR)
            assert held.recv(1) == b""  # closed, without an answer, when the handler has ended
        assert "mark=id-hold cancelled hold" in program.log.read_text()
    finally:
        program.process.kill()
        program.process.wait()
