"""A node by itself: its start, its memory, its API."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.node import HEARTH, build_multi, running_node
from tests.support.servers import free_port

from bench.figures import Figures
from bench.load import load, memory_mib

_ROUTE = '{"route":{"timeout":30}}'
#: Each change is one: to what is there already none is written.
_CHANGES = """
local count = 0
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, (wrk.body:gsub("30", count % 100 + 1)))
end
"""
#: Routes of a full page.
_PAGE = 30


def start(figures: Figures, *, rounds: int) -> None:
    """Seconds from the command to the first 200, and the memory of a node that does nothing."""
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            seconds, memory = _start(Path(folder))
        if not number:
            continue  # it compiles what an installed package has compiled
        figures.add("start", "to the first 200", "s", seconds)
        figures.add("start", "idle memory", "MiB", memory)


def api(figures: Figures, *, rounds: int, seconds: float) -> None:
    """Reads, lists and writes of routes in a second."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with running_node("process", data, build_multi(data, data / "source")) as node:
            for number in range(_PAGE):
                node.route(f"api{number}", "http")
            pages, pid = f"{node.url}/v1/apps/e2e/routes", node.process.pid
            url = f"{pages}/api0"
            for _ in range(rounds):
                done = {
                    "reads": load(url, pid, connections=32, seconds=seconds, method="GET", body=""),
                    "lists of 30": load(pages, pid, connections=32, seconds=seconds, method="GET", body=""),
                    "writes": load(
                        url, pid, connections=32, seconds=seconds, method="PATCH", body=_ROUTE, script=_CHANGES
                    ),
                }
                for name, result in done.items():
                    figures.add("API", name, "requests/s", result.rate, at=32)
                    figures.add("API", name, "us CPU each", result.cpu_us, at=32)
                    if result.errors:
                        raise SystemExit(f"bench: {result.errors} {name} failed")


def _start(data: Path) -> tuple[float, float]:
    port = free_port()
    variables = {**os.environ, "FN_DRIVER": "process", "FN_DATA_DIR": str(data), "FN_PORT": str(port)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    process = subprocess.Popen([HEARTH, "start"], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _answers(f"http://127.0.0.1:{port}/version"):
            if process.poll() is not None:
                raise SystemExit("bench: the node did not start")
            time.sleep(0.002)
        return time.perf_counter() - begun, memory_mib(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    address = urlsplit(url)
    try:
        with socket.create_connection((str(address.hostname), address.port or 80), 5) as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % address.path.encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
