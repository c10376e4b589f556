"""Async calls on each queue, against sync calls of the same function in the same run.

``python -m bench.async_calls`` prints a table; ``--million`` adds a backlog of a million calls on the durable queues
(minutes, and some GiB of disk or memory), ``--queue`` and ``--backlog`` choose. While a backlog is built nothing is
taken from it: a call that holds the memory of all async calls keeps the consumer waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.processes import leaves_below
from tests.support.redis_server import running_redis

from hearth.agent.function import Function
from hearth.clock import SystemClock
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.ids import IdGenerator
from hearth.models.route import LIMITS, Route
from hearth.queues.open import open_queue

QUEUES: Final = ("memory", "bolt", "redis")
DURABLE: Final = ("bolt", "redis")
MILLION: Final = 1_000_000
CLIENTS, SECONDS, ENQUEUED, WARM_UP, WAKE_UPS = 16, 4.0, 3000, 500, 200
TOTAL_MIB, BLOCKER_MIB, FUNCTION_MIB = 1600, 1030, 64
BODY: Final = b'{"echo":"x"}'


class Client:
    """Connections that make the same call again and again."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port

    async def call(self, path: str, status: bytes, *, count: int | None = None, seconds: float | None = None) -> float:
        """Calls per second, of so many calls or in so many seconds."""
        left = [count if count is not None else 1 << 60]
        begun = time.perf_counter()
        until = begun + (seconds if seconds is not None else 1e9)
        done = await asyncio.gather(*[self._repeat(path, status, left, until) for _ in range(CLIENTS)])
        return sum(done) / (time.perf_counter() - begun)

    async def _repeat(self, path: str, status: bytes, left: list[int], until: float) -> int:
        done = 0
        request = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(BODY), BODY)
        async with self._connection() as (reader, writer):
            while left[0] > 0 and time.perf_counter() < until:
                left[0] -= 1
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 " + status):
                    raise RuntimeError(f"{path}: {head.decode()}")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                done += 1
        return done

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            yield reader, writer
        finally:
            writer.close()


def completed(node: RunningNode) -> int:
    """Calls that have ended well since the node's start."""
    return int(node.http.get("/stats").json()["Complete"])


def block(node: RunningNode) -> None:
    """Have one call hold the memory of all async calls."""
    path = node.route("blocker", "http", type="async", memory=BLOCKER_MIB, timeout=3600)
    answer = node.call(path, sleep_ms=3_600_000)
    while node.record(answer)["status"] != "running":
        time.sleep(0.01)


def unblock(node: RunningNode) -> None:
    """End that call: kill whatever runs."""
    for pid in leaves_below(node.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def completion_rate(node: RunningNode) -> float:
    """Calls per second that end while a backlog is worked off."""
    base = completed(node)
    unblock(node)
    while (first := completed(node)) < base + WARM_UP:
        time.sleep(0.02)
    begun = time.perf_counter()
    wanted = base + ENQUEUED - WARM_UP
    while (last := completed(node)) < wanted and time.perf_counter() - begun < SECONDS:
        time.sleep(0.02)
    return (last - first) / (time.perf_counter() - begun)


def wake_ups_ms(node: RunningNode, path: str) -> list[float]:
    """Milliseconds from each 202 to the start of its call, on a node that has nothing else to do."""
    node.ended(node.call(path, echo="x"))
    taken = []
    for _ in range(WAKE_UPS):
        answer = node.call(path, echo="x")
        accepted = dt.datetime.now(dt.UTC)
        started = dt.datetime.fromisoformat(node.ended(answer)["started_at"])
        taken.append(max(0.0, (started - accepted).total_seconds() * 1000))
    return sorted(taken)


async def fill(url: str, image: str, count: int) -> None:
    """Put calls into a queue that no node has opened; the first of them is the blocker."""
    clock = SystemClock()
    next_id = IdGenerator(0, clock.now_ms)
    queue = await open_queue(url, clock)
    blocker = _call(image, "/blocker", BLOCKER_MIB, next_id(), b'{"sleep_ms":3600000}')
    blocker.priority = 2
    await queue.push([blocker])
    for _ in range(0, count, 1000):
        await queue.push([_call(image, "/later", FUNCTION_MIB, next_id(), BODY) for _ in range(1000)])
    await queue.close()


def _call(image: str, path: str, memory: int, call_id: str, body: bytes) -> Call:
    fields = {"format": "http", "type": "async", "timeout": 3600, "idle_timeout": 30}
    route = Route(app_name="e2e", path=path, image=image, memory=memory, **fields)
    function = Function(App(name="e2e"), route, LIMITS)
    url = f"http://127.0.0.1/r/e2e{path}"
    call = function.record(call_id, dt.datetime.now(dt.UTC), method="POST", url=url, headers={})
    call.status, call.payload = QUEUED, body
    return call


def measure(kind: str, backlog: int, url: str, data: Path, image: str) -> None:
    """Print one row."""
    filled = backlog >= MILLION
    if filled:
        uvloop.run(fill(url, image, backlog))
    environment = {"FN_MQ_URL": url, "FN_MAX_TOTAL_MEMORY": str(TOTAL_MIB << 20), "FN_LOG_LEVEL": "error"}
    with running_node("process", data, image, **environment) as node:
        fields = {"memory": FUNCTION_MIB, "timeout": 3600}
        later = node.route("later", "http", type="async", **fields)
        sync = node.route("sync", "http", memory=FUNCTION_MIB)
        client = Client(node.url)
        wake_ups = wake_ups_ms(node, later) if not filled else []
        if not filled:
            block(node)
            if backlog:
                uvloop.run(client.call(later, b"202", count=backlog))
        uvloop.run(client.call(sync, b"200", seconds=1))
        before = uvloop.run(client.call(sync, b"200", seconds=SECONDS))
        enqueued = uvloop.run(client.call(later, b"202", count=ENQUEUED))
        ended = completion_rate(node)
        unblock(node)
        after = 0.0 if backlog else uvloop.run(client.call(sync, b"200", seconds=SECONDS))
        base = statistics.fmean([before, after]) if after else before
    latency = "| | |"
    if wake_ups:
        latency = f"| {statistics.median(wake_ups):.0f} | {wake_ups[int(len(wake_ups) * 0.99)]:.0f} |"
    print(f"| {kind} | {backlog} | {enqueued / base:.2f} | {ended / base:.2f} {latency}", flush=True)
    print(json.dumps({"sync": base, "enqueue": enqueued, "complete": ended}), file=sys.stderr, flush=True)


@contextlib.contextmanager
def queue_url(kind: str, data: Path) -> Iterator[str]:
    """Where this kind of queue is."""
    if kind == "redis":
        with running_redis(data / "redis") as server:
            yield server.url()
    else:
        yield "memory://" if kind == "memory" else f"bolt://{data}/fn.mq"


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue", choices=QUEUES, action="append")
    parser.add_argument("--backlog", type=int, action="append")
    parser.add_argument("--million", action="store_true")
    chosen = parser.parse_args()
    backlogs = chosen.backlog or [0, 10_000, *([MILLION] if chosen.million else [])]
    print("| queue | backlog | enqueue / sync | complete / sync | wake-up p50, ms | p99, ms |")
    print("|---|---|---|---|---|---|", flush=True)
    for kind in chosen.queue or QUEUES:
        for backlog in backlogs:
            if backlog >= MILLION and kind not in DURABLE:
                continue
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder)
                image = build_multi(data, data / "source")
                with queue_url(kind, data) as url:
                    measure(kind, backlog, url, data, image)


if __name__ == "__main__":
    main()
