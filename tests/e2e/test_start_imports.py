"""What a start imports: each library costs time and memory, so those of other nodes and commands stay out."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.support.node import HEARTH, running_node

_IMPORTED = re.compile(r"import time: .*\| +(\S+)$", re.MULTILINE)
#: Libraries of runners, of Docker, of other stores and queues, of traces, of commands that build; what is for people.
_OTHERS = {
    *("aiobotocore", "aiodocker", "aiohttp", "alembic", "asyncmy", "asyncpg", "botocore", "httpx", "jsonschema"),
    *("mako", "opentelemetry", "prometheus_client", "pygments", "redis", "requests", "rich", "uvicorn", "yaml"),
}


def imported(folder: Path) -> set[str]:
    """The modules that a node with the process driver and its embedded stores has imported in its life."""
    with running_node("process", folder, "", [sys.executable, "-X", "importtime", HEARTH, "start"]) as node:
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
