"""hearth nodes: what it prints, within the width of a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.served_api import NODE, ServedApi, served_api


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with served_api(tmp_path_factory.mktemp("api")) as served:
        yield served


def test_nodes_are_listed_in_eighty_columns_and_drained_by_their_id(server: ServedApi, tmp_path: Path) -> None:
    cli = Cli(server.url, tmp_path)
    shown = cli.run("nodes", "list").stdout.splitlines()
    assert [line.split() for line in shown] == [
        ["ID", "TYPE", "HOST", "VERSION", "STATE", "MEMORY", "CONTAINERS"],
        [NODE.id, "runner", "runner-1", "0.2.0", "ready", "256/4096", "2"],
    ]
    assert max(map(len, shown)) <= 80
    (found,) = json.loads(cli.run("nodes", "list", "--output", "json").stdout)
    assert found["functions"] == [{"app": "seeded", "function": "/hello", "wait": 0, "start": 0, "idle": 2, "busy": 0}]
    done = cli.run("nodes", "drain", NODE.id)
    assert (done.returncode, "node 0f3a9c2b71de on runner-1 drains" in done.stdout) == (0, True)
    assert "draining" in cli.run("nodes", "list").stdout
    done = cli.run("nodes", "drain", "none")
    assert (done.returncode, "Node not found" in done.stderr) == (1, True)
