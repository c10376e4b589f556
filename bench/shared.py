"""Calls that wait, in one container: what ``concurrency`` is for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tests.support.cli import Cli
from tests.support.node import RunningNode, running_node

from bench.figures import Figures
from bench.load import cpu_seconds, load

#: How many calls wait at once, and for how long.
_AT_ONCE: Final = 200
_WAIT_S: Final = 0.1
_MEMORY_MIB: Final = 128
_FUNCTION: Final = f"""
import asyncio
from hearth_fdk import function

@function
async def handle() -> str:
    await asyncio.sleep({_WAIT_S})
    return "x"
"""


def shared(figures: Figures, *, rounds: int, seconds: float) -> None:
    """Load an asynchronous handler over as many connections as one container of it takes calls.

    Raises:
        SystemExit: Another container was started.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        source = data / "waits"
        source.mkdir()
        (source / "func.py").write_text(_FUNCTION)
        (source / "func.yaml").write_text("name: waits\nversion: '1'\nruntime: python\n")
        Cli("", data, FN_DATA_DIR=folder)("build", "--driver", "process", source)
        with running_node("process", data, "waits:1") as node:
            fields = {"memory": _MEMORY_MIB, "concurrency": _AT_ONCE, "timeout": 60, "idle_timeout": 600}
            url = node.url + node.route("waits", "http-stream", **fields)
            load(url, None, connections=_AT_ONCE, seconds=1)
            for _ in range(rounds):
                _measure(figures, node, url, seconds)


def _measure(figures: Figures, node: RunningNode, url: str, seconds: float) -> None:
    (function,) = _processes(node)
    before = cpu_seconds(function)
    done = load(url, node.process.pid, connections=_AT_ONCE, seconds=seconds)
    spent = cpu_seconds(function) - before
    if done.errors or _processes(node) != [function]:
        raise SystemExit(f"bench: {done.errors} of {done.requests} requests failed, or more containers were started")
    group, subject = "waiting", f"{_AT_ONCE} calls of {_WAIT_S * 1000:.0f} ms"
    figures.add(group, subject, "requests/s", done.rate)
    figures.add(group, subject, "of what the waits allow", done.rate / (_AT_ONCE / _WAIT_S))
    figures.add(group, subject, "ms p99", done.p99_ms)
    figures.add(group, subject, "us CPU of the node each", done.cpu_us)
    figures.add(group, subject, "us CPU of the function each", spent * 1e6 / done.requests)


def _processes(node: RunningNode) -> list[int]:
    """The programs of functions: of what was started in a bundle, what has no child."""
    parents: dict[int, int] = {}
    roots: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
            if str(node.data / "bundles") in (path.parent / "cmdline").read_text():
                roots.add(int(path.parent.name))
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        return pid in roots or (pid in parents and is_ours(parents[pid]))

    return [pid for pid in parents if pid not in parents.values() and pid != node.process.pid and is_ours(pid)]
