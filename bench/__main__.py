"""Warm calls against the function's own process, and cold starts of each driver, in one run.

``make bench`` prints a table. Rounds of the compared things are interleaved, so that a busy machine is busy for all.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node

ROUNDS, CALLS, STARTS = 5, 300, 7
BODY = json.dumps({"echo": "x"}).encode()


class Direct:
    """The function's process, called over its own pipes: the limit of what a platform can reach."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, MULTI], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"FN_FORMAT": "http"}
        )

    def __call__(self) -> None:
        """One call."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"POST / HTTP/1.1\r\nFn_call_id: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        stdin.flush()
        length = 0
        while (line := stdout.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        stdout.read(length)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


class Through:
    """The same function behind a node, over one kept connection."""

    def __init__(self, node: RunningNode, path: str) -> None:
        address = urlsplit(node.url)
        assert address.hostname is not None
        self.connection = http.client.HTTPConnection(address.hostname, address.port)
        self.path = path

    def __call__(self) -> None:
        """One call."""
        self.connection.request("POST", self.path, BODY)
        answer = self.connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.path}: {answer.status}")


def per_call_ms(call: Callable[[], None]) -> float:
    """Milliseconds of one call in a round."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begun) * 1000 / CALLS


def cold_ms(node: RunningNode) -> list[float]:
    """Milliseconds of calls that each need a new container."""
    path = node.route("cold", "default")
    taken = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        if node.call(path, echo="x").status_code != 200:
            raise RuntimeError("the cold call failed")
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


def own_start_ms() -> list[float]:
    """Milliseconds of the function's process alone, from start to its answer."""
    taken = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, MULTI], input=BODY, stdout=subprocess.DEVNULL, env={}, check=True)
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


def measure(driver: str, image: str, data: Path) -> None:
    """Print one driver's figures."""
    direct = Direct()
    with running_node(driver, data, image) as node:
        calls = {name: Through(node, node.route(name, name)) for name in ("http", "json")}
        for call in (direct, *calls.values()):
            call()
        rounds = [
            {"direct": per_call_ms(direct), **{n: per_call_ms(c) for n, c in calls.items()}} for _ in range(ROUNDS)
        ]
        cold, own = cold_ms(node), own_start_ms()
    direct.close()
    for name in calls:
        ratios = [one[name] / one["direct"] for one in rounds]
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(f"| {driver} | warm {name} call / direct call | {statistics.median(ratios):.1f} | {spread} |")
    base = statistics.median(own)
    ratio, spread = statistics.median(cold) / base, f"{min(cold) / base:.1f} to {max(cold) / base:.1f}"
    print(f"| {driver} | cold call / own start of the function | {ratio:.1f} | {spread} |", flush=True)


def main() -> None:
    """Measure every driver that is here."""
    print("| driver | what | median | spread |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        measure("process", build_multi(data, data / "source"), data)
        if subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
            measure("docker", python_image(MULTI), data)


if __name__ == "__main__":
    main()
