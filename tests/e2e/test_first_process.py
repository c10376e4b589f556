"""A node as process 1 of a container: it takes the place of an init program."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.node import HEARTH, RunningNode, build_bundle, running_node
from tests.support.waiting import until

LEAVE_ORPHANS = Path(__file__).parent.parent / "functions" / "orphans.py"
SPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root makes namespaces of processes"
)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def zombies(pid: int) -> list[int]:
    """The zombies among a process's descendants."""
    below = children(pid)
    return [child for child in below if is_zombie(child)] + [one for child in below for one in zombies(child)]


def first_process(node: RunningNode) -> int:
    (first,) = children(node.process.pid)
    return first


@contextlib.contextmanager
def as_first_process(data: Path, image: str, sandbox: str) -> Iterator[RunningNode]:
    """A node in a namespace of processes; leaving it stops the first one, as an engine does."""
    command = (*SPACE, HEARTH, "start")
    with running_node("process", data, image, command=command, FN_SANDBOX=sandbox) as node:
        try:
            yield node
        finally:
            os.kill(first_process(node), signal.SIGTERM)
            assert node.process.wait(60) == 0


@pytest.mark.parametrize("sandbox", ["required", "off"])
def test_no_zombie_is_left_and_no_exit_code_is_lost(tmp_path: Path, sandbox: str) -> None:
    if sandbox == "required" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    data = tmp_path / "data"
    image = build_bundle(data, tmp_path / "source", LEAVE_ORPHANS)
    with as_first_process(data, image, sandbox) as node:
        path = node.route("orphans", "default")
        for code in (0, 3, 0, 7):
            answer = node.http.post(path, content=str(code))
            assert answer.status_code == (200 if code == 0 else 502), answer.text
            if code:
                assert f"container exit code {code}" in answer.text
        assert until(lambda: zombies(first_process(node)) == [])


def test_a_signal_stops_it_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    image = build_bundle(data, tmp_path / "source", LEAVE_ORPHANS)
    with as_first_process(data, image, "off") as node:
        assert node.http.get("/readyz").status_code == 200
    assert "server stopped" in (data / "server.log").read_text()
