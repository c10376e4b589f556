"""Several workers of one node, and several runners of one machine, beside a full node, under the same load.

What a node may gain is what its one event loop lacks; functions and load share the machine's processors with it. So
the processors that are used are told, too: those of all nodes together, and of HAProxy.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.node import HEARTH, RunningNode, build_multi, running_node
from tests.support.servers import free_port

from bench.figures import Figures
from bench.load import cpu_seconds, load

SIZES = (2, 4)
FULL_NODE = "full node"
CONNECTIONS = (32, 128)


def local_fleet(figures: Figures, *, rounds: int, seconds: float) -> None:
    """Compare the rates of local fleets with that of a full node, and show the processors that they use."""
    with contextlib.ExitStack() as stack:
        nodes = {FULL_NODE: stack.enter_context(_node())}
        for size in SIZES:
            nodes[f"{size} workers"] = stack.enter_context(_node("--workers", str(size)))
            nodes[f"{size} runners"] = stack.enter_context(_node("--nodes", str(size)))
        paths = {name: node.route("warm", "http", memory=64) for name, node in nodes.items()}
        for round_ in range(rounds + 1):
            for connections in CONNECTIONS:
                for name, node in nodes.items():
                    before, begun = _used(node, name), time.perf_counter()
                    done = load(node.url + paths[name], None, connections=connections, seconds=seconds)
                    used = (_used(node, name) - before) / (time.perf_counter() - begun)
                    if done.errors:
                        raise SystemExit(f"bench: {name}: {done.errors} of {done.requests} requests failed")
                    if round_:  # the first one starts the containers
                        against = "" if name == FULL_NODE else FULL_NODE
                        figures.add("one machine", name, "requests/s", done.rate, at=connections, against=against)
                        figures.add("one machine", name, "processors of nodes", used, at=connections)


@contextlib.contextmanager
def _node(*options: str) -> Iterator[RunningNode]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        image = build_multi(data, data / "source")
        more = {"FN_PORT": str(free_port()), "FN_LOG_LEVEL": "error"}
        with running_node("process", data, image, (HEARTH, "start", *options), **more) as node:
            yield node


def _used(node: RunningNode, name: str) -> float:
    """Processor seconds of a node, or of all members of a local fleet."""
    pids = {node.process.pid}
    if name != FULL_NODE:  # whose children are its functions
        told = subprocess.run(["pgrep", "-P", str(node.process.pid)], capture_output=True, text=True, check=True)
        pids |= {int(pid) for pid in told.stdout.split()}
    return sum(map(cpu_seconds, pids))
