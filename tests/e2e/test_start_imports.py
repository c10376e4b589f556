"""What a start imports: each library costs time and memory, so those of other nodes and commands stay out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.fleet import RUNNER_TOKEN
from tests.support.node import HEARTH, running_node

_IMPORTED = re.compile(r"import time: .*\| +(\S+)$", re.MULTILINE)
#: Libraries of runners, of Docker, of other stores and queues, of traces, of commands that build; what is for people.
_OTHERS = {
    *("aiobotocore", "aiodocker", "aiohttp", "alembic", "asyncmy", "asyncpg", "botocore", "httpx", "jsonschema"),
    *("mako", "opentelemetry", "prometheus_client", "pygments", "redis", "requests", "rich", "uvicorn", "yaml"),
}


def imported(folder: Path, **environment: str) -> set[str]:
    """The modules that a node with the process driver has imported in its life."""
    command: list[Path | str] = [sys.executable, "-X", "importtime", HEARTH, "start"]
    with running_node("process", folder, "", command, **environment) as node:
        assert node.http.get("/version").status_code == 200
        assert node.stop() == 0
    return set(_IMPORTED.findall((folder / "server.log").read_text()))


def test_a_start_imports_nothing_that_the_node_does_not_use(tmp_path: Path) -> None:
    for state in ("no data", "data of an earlier run"):
        found = imported(tmp_path)
        assert {"hearth.nodes.build", "sqlalchemy", "hearth.server.http.server"} <= found, "the modules are told"
        found.discard("rich")  # structlog asks for it in vain, which is told, too
        assert {name for name in found if name.partition(".")[0] in _OTHERS} == set(), state
        assert "hearth.projects" not in found, state


def test_a_runner_imports_no_database(tmp_path: Path) -> None:
    api, runner = tmp_path / "api", tmp_path / "runner"
    api.mkdir()
    runner.mkdir()
    with running_node("process", api, "", FN_RUNNER_TOKEN=RUNNER_TOKEN) as node:
        environment = {"FN_NODE_TYPE": "runner", "FN_RUNNER_API_URL": node.url, "FN_RUNNER_TOKEN": RUNNER_TOKEN}
        found = imported(runner, **environment)
    assert {"hearth.nodes.build", "hearth.access.remote.world"} <= found, "the modules are told"
    databases = _OTHERS - {"aiohttp", "httpx", "rich"} | {"aiosqlite", "sqlalchemy"}
    assert {name for name in found if name.partition(".")[0] in databases or name.startswith("hearth.sql.")} == set()


@pytest.mark.parametrize("words", ["--help", "apps list"])
def test_a_command_imports_no_node_and_its_help_no_client(words: str) -> None:
    command: list[Path | str] = [
        sys.executable,
        "-X",
        "importtime",
        HEARTH,
        "--api-url",
        "http://127.0.0.1:1",
        *words.split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    found = set(_IMPORTED.findall(done.stderr))
    assert {"hearth.cli.main", "typer"} <= found, "the modules are told"
    client = {"httpx", "pydantic", "pygments", "rich"}
    nodes = _OTHERS - client | {"sqlalchemy", "starlette", "structlog", "uvloop"}
    unwanted = nodes | {"httpx", "pydantic"} if words == "--help" else nodes
    assert {name for name in found if name.partition(".")[0] in unwanted} == set()
