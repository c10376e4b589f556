"""An API node with 1, 2 and 4 runners against a full node, and what a hundred waiting runners cost.

``python -m bench.fleet`` prints a table. All nodes, and the clients, share one machine: what is seen is the price of
the hops, not what more machines bring.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop
from tests.support.fleet import running_fleet
from tests.support.node import RunningNode

from bench.load import cpu_seconds, load

SECONDS: Final = 4.0
ACCEPT_S: Final = 1.0
CLIENTS: Final = 16
ROUNDS: Final = 3
SERIAL: Final = 300
POLLS: Final = 100
IDLE_S: Final = 20.0
ENVIRONMENT: Final[dict[str, Any]] = {"FN_LOG_LEVEL": "error", "FN_MAX_TOTAL_MEMORY": str(1600 << 20)}


def rate(nodes: list[RunningNode], path: str, seconds: float = SECONDS) -> float:
    """Calls per second through these nodes at once."""
    with concurrent.futures.ThreadPoolExecutor(len(nodes)) as pool:
        done = list(pool.map(lambda node: _load(node, path, seconds), nodes))
    return sum(done)


def _load(node: RunningNode, path: str, seconds: float) -> float:
    done = load(node.url + path, None, connections=CLIENTS, seconds=seconds)
    if done.errors:
        raise SystemExit(f"bench: {done.errors} of {done.requests} calls of {path} failed")
    return done.rate


def serial_ms(node: RunningNode, path: str) -> float:
    """Median milliseconds of calls one after the other."""
    taken = []
    for _ in range(SERIAL):
        begun = time.perf_counter()
        node.call(path, echo="x")
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


async def waiting(node: RunningNode, polls: int) -> float:
    """Percent of a processor that the node uses while so many runners wait."""

    async def poll(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get(f"{node.url}/v1/runner/async?limit=32&wait_s=30") as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.ensure_future(poll(session)) for _ in range(polls)]
        await asyncio.sleep(2)
        before = cpu_seconds(node.process.pid)
        await asyncio.sleep(IDLE_S)
        used = (cpu_seconds(node.process.pid) - before) / IDLE_S * 100
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return used


def main() -> None:
    """Measure, interleaved with a full node in the same run."""
    fields = {"memory": 64}
    with tempfile.TemporaryDirectory() as folder, running_fleet(Path(folder), runners=4, **ENVIRONMENT) as fleet:
        full = fleet.start("full")
        for node in (full, fleet.api):
            node.route("sync", "http", **fields)
            node.route("later", "http", type="async", timeout=3600, **fields)
        sync, later = "/r/e2e/sync", "/r/e2e/later"
        for node in (full, *fleet.runners):
            rate([node], sync, 1)
        print("| what | median | spread |\n|---|---|---|", flush=True)
        sizes = (1, 2, 4)
        ratios: dict[int, list[float]] = {size: [] for size in sizes}
        hops: list[float] = []
        accepted: list[float] = []
        for _ in range(ROUNDS):
            base = rate([full], sync)
            for size in sizes:
                ratios[size].append(rate(fleet.runners[:size], sync) / base)
            hops.append(serial_ms(fleet.runners[0], sync) / serial_ms(full, sync))
        for size in sizes:
            show(f"sync rate, {size} runners / full node", ratios[size])
        show("one call alone, runner / full node", hops)
        for _ in range(ROUNDS):
            base = rate([full], later, ACCEPT_S)
            accepted.append(rate(fleet.runners[:1], later, ACCEPT_S) / base)
        show("async calls accepted, runner / full node", accepted)
    with tempfile.TemporaryDirectory() as folder, running_fleet(Path(folder), runners=0, **ENVIRONMENT) as fleet:
        idle, used = (uvloop.run(waiting(fleet.api, polls)) for polls in (0, POLLS))
        print(f"| percent of a processor, API node alone | {idle:.2f} | |")
        print(f"| percent of a processor, {POLLS} runners wait | {used:.2f} | |", flush=True)


def show(what: str, ratios: list[float]) -> None:
    """One row."""
    print(f"| {what} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |", flush=True)


if __name__ == "__main__":
    main()
