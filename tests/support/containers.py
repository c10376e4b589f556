"""Containers that a test runs by docker's own client."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx


def docker(*arguments: object, check: bool = True) -> str:
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_until(holds: Callable[[], Any], limit_s: float = 60) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def running(image: str, *options: object, init: bool = True) -> Iterator[str]:
    """A container of the image, with a first process of Docker's unless it brings its own; its id."""
    container = docker("run", "--detach", *(["--init"] if init else []), *options, image)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def address(container: str) -> str:
    networks = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"]
    return f"http://{next(iter(networks.values()))['IPAddress']}:8080"


def serving(container: str) -> str:
    """The URL of a node, once it is ready."""
    wait_until(lambda: docker("inspect", "--format", "{{.State.Running}}", container) != "true" or ready(container))
    assert docker("inspect", "--format", "{{.State.Running}}", container) == "true", docker_logs(container)
    return address(container)


def ready(container: str) -> bool:
    return answers(address(container))


def docker_logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False
