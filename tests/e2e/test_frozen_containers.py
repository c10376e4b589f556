"""Nodes that freeze idle containers (``FN_FREEZE_IDLE_MSECS``), on both drivers: frozen in truth, and never noticed."""

from __future__ import annotations

import functools
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node
from tests.support.remains import control_groups
from tests.support.waiting import until


@pytest.fixture(params=["process", "docker"])
def driver(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker")
    return str(request.param)


def node_id(node: RunningNode) -> str:
    return (node.data / "node-id").read_text().strip()


def containers(node: RunningNode, *filters: str) -> int:
    """The number of its containers, as Docker tells it, or the kernel."""
    if node.driver == "docker":
        chosen = [word for each in (f"label=hearth.node={node_id(node)}", *filters) for word in ("--filter", each)]
        return len(subprocess.run(["docker", "ps", "-aq", *chosen], capture_output=True, check=True).stdout.split())
    return len({group.name for group in control_groups(node_id(node))})


def frozen(node: RunningNode) -> int:
    """The number of its containers whose processes do not run."""
    if node.driver == "docker":
        return containers(node, "status=paused")
    shown = {"freezer.state": "FROZEN\n", "cgroup.events": "frozen 1\n"}  # of versions 1 and 2
    found = [(group / name, text) for group in control_groups(node_id(node)) for name, text in shown.items()]
    return sum(path.exists() and text in path.read_text() for path, text in found)


def has_frozen(node: RunningNode, at_least: int) -> bool:
    return frozen(node) >= at_least


def has_logged(node: RunningNode, answer: httpx.Response) -> bool:
    return "in the log" in node.log(answer)


def echoed(node: RunningNode, path: str, text: str) -> str:
    return node.call(path, echo=text).text


def test_idle_containers_are_frozen_and_every_call_is_answered_by_them(driver: str, tmp_path: Path) -> None:
    image = python_image(MULTI) if driver == "docker" else build_multi(tmp_path, tmp_path / "source")
    with running_node(driver, tmp_path, image, FN_FREEZE_IDLE_MSECS="0") as node:
        for count, name in enumerate(("http", "http-stream"), 1):
            path = node.route(name, name, timeout=60, idle_timeout=600)
            born = node.call(path, tell=True).json()["born"]
            for number in range(3):
                assert until(functools.partial(has_frozen, node, count)), containers(node)
                seen = node.call(path, tell=True, number=number).json()
                assert (seen["born"], seen["body"]) == (born, f'{{"tell":true,"number":{number}}}')
            with ThreadPoolExecutor(8) as pool:
                texts = [f"{name} {number}" for number in range(24)]
                assert list(pool.map(functools.partial(echoed, node, path), texts)) == texts
            assert until(lambda: frozen(node) == containers(node))
            answer = node.call(path, say="in the log", echo="x")
            assert until(functools.partial(has_logged, node, answer))
        other = node.route("other", "http", idle_timeout=1)
        known = containers(node)
        assert node.call(other, echo="x").text == "x"
        assert until(lambda: containers(node) == known)  # it ends after its idle time, as any other
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
        assert frozen(node) == known
    with running_node(driver, tmp_path, image, FN_FREEZE_IDLE_MSECS="0") as node:
        assert until(lambda: containers(node) == 0)  # what was left was frozen
        assert node.call("/r/e2e/http", echo="x").text == "x"
        assert until(lambda: frozen(node) == containers(node) == 1)
        assert node.stop() == 0
        assert containers(node) == 0
