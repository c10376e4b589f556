"""A node as a process of its own, as an operator would run it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.cli import Cli
from tests.support.processes import spawn

HEARTH = Path(sys.executable).with_name("hearth")
MULTI = Path(__file__).parent.parent / "functions" / "multi.py"
BUSY = "Timed out - server too busy"
WITNESS = MULTI.with_name("witness.py")
PHASES = MULTI.with_name("phases.py")


class RunningNode:
    """A node that serves; routes are made through its API.

    Attributes:
        told: What the node said of itself when it started, by the first word of the line.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        url: str,
        data: Path,
        driver: str,
        image: str,
        told: Mapping[str, str] | None = None,
    ) -> None:
        self.told = dict(told or {})
        self.process = process
        self.url = url
        self.data = data
        self.driver = driver
        self.image = image
        self.http = httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=200))

    def route(self, path: str, format_name: str, **fields: Any) -> str:
        """Make or change a route of the test function; the path that calls it."""
        route = {"image": self.image, "format": format_name, **fields}
        answer = self.http.put(f"/v1/apps/e2e/routes/{path}", json={"route": route})
        assert answer.status_code == 200, answer.text
        return f"/r/e2e/{path}"

    def call(self, path: str, **orders: Any) -> httpx.Response:
        """Call it with orders."""
        return self.http.post(path, json=orders)

    def call_once_free(self, path: str, **orders: Any) -> httpx.Response:
        """Call it again while the node says that it is busy: a call waits for its container for half of its timeout
        only, in which a slow machine may start none.
        """
        while (answer := self.call(path, **orders)).status_code == 503:
            assert answer.json()["error"]["message"] == BUSY
        return answer

    def record(self, answer: httpx.Response) -> dict[str, Any]:
        """The stored record of an answered call."""
        found = self.http.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}")
        assert found.status_code == 200, found.text
        call: dict[str, Any] = found.json()["call"]
        return call

    def is_recorded(self, answer: httpx.Response) -> bool:
        """Return whether the record of a call whose client left is stored."""
        return self.http.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}").status_code == 200

    def ended(self, answer: httpx.Response) -> dict[str, Any]:
        """The record of an accepted async call, once it has ended."""
        assert answer.status_code == 202, answer.text
        deadline = time.monotonic() + 60
        while (call := self.record(answer))["status"] in ("queued", "running"):
            assert time.monotonic() < deadline, call
            time.sleep(0.01)
        return call

    def log(self, answer: httpx.Response) -> str:
        """The stored log of an answered call."""
        call_id = answer.headers["fn_call_id"]
        return self.http.get(f"/v1/apps/e2e/calls/{call_id}/log", headers={"accept": "text/plain"}).text

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def running_node(
    driver: str,
    data: Path,
    image: str,
    command: Sequence[Path | str] = (HEARTH, "start"),
    address: str = "127.0.0.1",
    **environment: str,
) -> Iterator[RunningNode]:
    """Start a node, reached at this address; leaving it stops it."""
    variables = {
        **os.environ,
        "FN_DRIVER": driver,
        "FN_DATA_DIR": str(data),
        "FN_PORT": "0",
        "FN_MAX_TOTAL_MEMORY": str(8191 << 20),  # the largest memory of a route can never fit
        "FN_HOT_START_TIMEOUT_MSECS": "120000",  # a busy machine starts slowly
        **({"FN_FUNCTION_NETWORK": "host"} if driver == "process" else {}),  # they tell witnesses on loopback
        **environment,
    }
    log = (data / "server.log").open("w")
    process = spawn(command, env=variables, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        told = told_by(process)
        node = RunningNode(process, told["url"].replace("127.0.0.1", address), data, driver, image, told)
        with node.http:
            yield node
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        log.close()


def url_of(process: subprocess.Popen[str]) -> str:
    return told_by(process)["url"]


def told_by(process: subprocess.Popen[str]) -> dict[str, str]:
    """Return what a starting node says of itself, once it serves."""
    assert process.stdout is not None
    told: dict[str, str] = {}
    for line in process.stdout:
        name, _, value = line.strip().partition(" ")
        told[name] = value.strip()
        if name == "driver":
            return told
    raise AssertionError("the node did not start")


def build_multi(data: Path, folder: Path) -> str:
    """The test function as a bundle; its reference."""
    return build_bundle(data, folder, MULTI)


def build_bundle(data: Path, folder: Path, script: Path) -> str:
    """A script as a bundle; its reference. Built once in this process, and copied."""
    folder.mkdir(parents=True)
    write_function(folder, script)
    if not (data / "bundles" / script.stem).exists():
        shutil.copytree(_built(script) / "bundles", data / "bundles", symlinks=True, dirs_exist_ok=True)
    return f"{script.stem}:1"


@functools.cache
def _built(script: Path) -> Path:
    """A data folder with the bundle."""
    data = Path(tempfile.mkdtemp(prefix="hearth-built-"))
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    (data / "source").mkdir()
    write_function(data / "source", script)
    Cli("", data, FN_DATA_DIR=str(data))("build", "--driver", "process", data / "source")
    return data


def write_function(folder: Path, script: Path) -> None:
    """A script as the sources of a function; it starts without what this machine has installed in its Python.

    That may run code at each start, which then takes longer than all the rest.
    """
    (folder / "func.py").write_bytes(script.read_bytes())
    command = "cmd: [python3, -S, -m, hearth_fdk, func.py]"
    (folder / "func.yaml").write_text(f"name: {script.stem}\nversion: '1'\nruntime: python\n{command}\n")
