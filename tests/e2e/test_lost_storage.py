"""A full disk, or a file that somebody deletes: the node says so, and promises nothing that it cannot keep."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until

FULL = 503


def readiness(node: RunningNode) -> tuple[int, dict[str, Any]]:
    answer = node.http.get("/readyz")
    return answer.status_code, answer.json()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a disk")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_node_whose_disk_is_full_is_not_ready_until_there_is_room(tmp_path: Path) -> None:
    image = build_multi(tmp_path / "built", tmp_path / "source")
    with small_disk(tmp_path / "disk") as disk, running_node("process", disk, image, FN_DRIVER="process") as node:
        assert readiness(node)[0] == 200
        fill(disk)
        assert until(lambda: readiness(node)[0] == FULL)
        status, told = readiness(node)
        assert (status, told["data"]) == (503, f"cannot write to {disk}: No space left on device")
        assert (node.http.get("/healthz").status_code, node.http.get("/v1/apps").status_code) == (200, 200)
        (disk / "filler").unlink()
        assert until(lambda: readiness(node)[0] == 200)
        assert node.http.post("/v1/apps", json={"app": {"name": "again"}}).status_code == 200


def test_a_deleted_database_is_noticed_and_no_change_is_confirmed(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node:
        assert node.http.post("/v1/apps", json={"app": {"name": "before"}}).status_code == 200
        (tmp_path / "fn.db").rename(tmp_path / "moved.db")
        assert node.http.post("/v1/apps", json={"app": {"name": "lost"}}).status_code == 500
        assert until(lambda: readiness(node)[0] == 503)
        assert "fn.db was deleted, moved or replaced" in readiness(node)[1]["database"]
        (tmp_path / "moved.db").rename(tmp_path / "fn.db")
        assert until(lambda: readiness(node)[0] == 200)
        assert node.http.get("/v1/apps/lost").status_code == 404


def test_a_deleted_queue_is_noticed_and_no_call_is_accepted(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node:
        path = node.route("later", "http", type="async")
        assert node.call(path).status_code == 202
        (tmp_path / "fn.mq").unlink()
        assert node.call(path).status_code == 500
        assert until(lambda: readiness(node)[0] == 503)
        assert "fn.mq was deleted, moved or replaced" in readiness(node)[1]["queue"]
