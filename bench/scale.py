"""Scale curves: what a warm call takes, and costs its node, while there is more and more of something.

Each round of each size is measured beside a round of a node that has next to nothing: their ratio is what tells, for a
busy machine is another one a minute later.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.node import RunningNode, build_multi, running_node

from bench.async_calls import BLOCKER_MIB, fill
from bench.figures import Figures
from bench.load import load
from bench.rows import load as load_rows
from hearth.stores.sql import open_datastore

ROUTES = (1, 100, 1_000, 10_000)
CONTAINERS = (1, 10, 100, 500)
QUEUED = (1_000, 100_000, 1_000_000)
ROWS = (1_000, 100_000, 10_000_000)
SMALL = "with one of all"
_BIG = str(64 * 1024**3)
_CONNECTIONS = 8


def scale(figures: Figures, *, seconds: float, rounds: int, most: int) -> None:
    """Routes, hot containers, queued calls, rows of calls; each up to ``most``."""
    with _node() as small:
        base = _warm(small)
        with _node() as node:
            for what, sizes, add in (("routes", ROUTES, _add_routes), ("hot containers", CONTAINERS, _add_containers)):
                made = 1
                for size in _up_to(most, sizes):
                    add(node, made, size)
                    made = size
                    _measure(figures, what, size, _warm(node), base, seconds, rounds)
        for size in _up_to(most, QUEUED):
            with _node(lambda data, size=size: _fill_queue(data, size)) as node:  # type: ignore[misc]  # bound now
                _measure(figures, "queued calls", size, _warm(node), base, seconds, rounds)
        for size in _up_to(most, ROWS):
            with _node(lambda data, size=size: _fill_rows(data, size)) as node:  # type: ignore[misc]  # bound now
                _measure(figures, "rows of calls", size, _warm(node), base, seconds, rounds)


def _up_to(most: int, sizes: Sequence[int]) -> list[int]:
    return [size for size in sizes if size <= most]


@contextlib.contextmanager
def _node(prepare: Callable[[Path], dict[str, str] | None] = lambda data: None) -> Iterator[RunningNode]:
    """A node whose data was prepared."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        image = build_multi(data, data / "source")
        # every container is idle but one: what the node may give away is not what the machine has
        more = prepare(data) or {"FN_MAX_TOTAL_MEMORY": _BIG}
        with running_node("process", data, image, **more) as node:
            yield node


def _warm(node: RunningNode) -> tuple[str, int]:
    url, pid = node.url + node.route("warm", "http", memory=64, idle_timeout=3600), node.process.pid
    load(url, pid, connections=_CONNECTIONS, seconds=1)
    return url, pid


def _measure(
    figures: Figures, what: str, size: int, grown: tuple[str, int], base: tuple[str, int], seconds: float, rounds: int
) -> None:
    for _ in range(rounds):
        for name, (url, pid) in ((SMALL, base), ("a warm call", grown)):
            done = load(url, pid, connections=_CONNECTIONS, seconds=seconds)
            if done.errors:
                raise SystemExit(f"bench: {what}, {size}: {done.errors} of {done.requests} requests failed")
            against = "" if name == SMALL else SMALL
            figures.add(f"with {what}", name, "ms p50", done.p50_ms, at=size, against=against)
            figures.add(f"with {what}", name, "us CPU each", done.cpu_us, at=size, against=against)


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


def _fill_queue(data: Path, size: int) -> dict[str, str]:
    """Calls behind one that holds the memory of all async calls."""
    url = f"bolt://{data}/fn.mq"
    asyncio.run(fill(url, "multi:1", size))
    # the one that runs at the end is not waited for
    return {"FN_MQ_URL": url, "FN_MAX_TOTAL_MEMORY": str((BLOCKER_MIB + 570) << 20), "FN_GRACE_S": "1"}


def _fill_rows(data: Path, size: int) -> dict[str, str] | None:
    async def filled() -> None:
        url = f"sqlite3://{data}/fn.db"
        await (await open_datastore(url)).close()  # it makes the tables
        await load_rows(url, 0, size, data)

    asyncio.run(filled())
    return None
