"""Scale curves: the latency of a warm call while the node has more and more of something."""

from __future__ import annotations

import concurrent.futures
import tempfile
from pathlib import Path

from tests.support.node import RunningNode, build_multi, running_node

from bench.figures import Figures
from bench.load import load

ROUTES = (1, 100, 1_000, 10_000)
CONTAINERS = (1, 10, 100, 500)
_BIG = str(64 * 1024**3)


def scale(figures: Figures, *, seconds: float, rounds: int) -> None:
    """Routes first, then hot containers."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        # every container is idle but one: what the node may give away is not what the machine has
        with running_node("process", data, build_multi(data, data / "source"), FN_MAX_TOTAL_MEMORY=_BIG) as node:
            url = node.url + node.route("warm", "http", memory=64)
            _curve(figures, node, url, "routes", ROUTES, _add_routes, seconds, rounds)
            _curve(figures, node, url, "hot containers", CONTAINERS, _add_containers, seconds, rounds)


def _curve(figures: Figures, node: RunningNode, url: str, what: str, sizes: tuple[int, ...], grow, seconds: float,
           rounds: int) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    made = 1
    for size in sizes:
        grow(node, made, size)
        made = size
        for _ in range(rounds):
            done = load(url, node.process.pid, connections=8, seconds=seconds)
            figures.add(f"with {what}", "a warm call", "ms p50", done.p50_ms, at=size)
            figures.add(f"with {what}", "a warm call", "us CPU each", done.cpu_us, at=size)


def _add_routes(node: RunningNode, made: int, wanted: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: node.route(f"r{number}", "http", memory=64), range(made, wanted)))


def _add_containers(node: RunningNode, made: int, wanted: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        paths = pool.map(
            lambda number: node.route(f"hot{number}", "http", memory=64, idle_timeout=3600), range(made, wanted)
        )
        for answer in pool.map(lambda path: node.call(path, echo="x"), list(paths)):
            if answer.status_code != 200:
                raise SystemExit(f"bench: {answer.text}")
