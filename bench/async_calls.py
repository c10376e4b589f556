"""Async calls on each queue, against sync calls of the same function on the same node.

``python -m bench.async_calls`` prints a table; ``--million`` adds a backlog of a million calls on the durable queues
(minutes, and some GiB of disk or memory); ``--queue``, ``--backlog`` and ``--rounds`` choose. In each round a backlog
is built and worked off, and the sync rate measured before and after, with as many callers as serve it best; the medians
of the rounds are printed. Beside rates it tells what a call of each kind costs the node's processors: that is steadier.

While a backlog is built nothing is taken from it, but for a few calls at its beginning: a call that holds the memory of
all async calls keeps the consumer waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvloop
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.processes import leaves_below
from tests.support.redis_server import running_redis

from bench.load import Result, cpu_seconds, load
from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.ids import IdGenerator
from hearth.models.route import LIMITS, Route
from hearth.queues.open import open_queue
from hearth.server.api_v1.compile import compile_route

QUEUES: Final = ("memory", "bolt", "redis")
DURABLE: Final = ("bolt", "redis")
MILLION: Final = 1_000_000
CLIENTS: Final = 16
CALLERS: Final = (8, 16, 32, 64)
SYNC_S, ENQUEUE_S = 2.0, 1.0
#: Completions of a round that are measured, after so many that start the containers.
MEASURED, WARM_UP, WAKE_UPS = 4000, 2000, 200
TOTAL_MIB, BLOCKER_MIB, FUNCTION_MIB = 1600, 1030, 64
BODY: Final = b'{"echo":"x"}'


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """Rates per second, and microseconds of the node's processors for a call."""

    sync: float
    enqueue: float
    complete: float
    sync_us: float
    complete_us: float


class Bench:
    """One node, and the two routes of its function."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self._pid = node.process.pid
        self.later = node.route("later", "http", type="async", memory=FUNCTION_MIB, timeout=3600)
        self._sync = node.route("sync", "http", memory=FUNCTION_MIB)
        self._callers = 0

    def rounds(self, backlog: int, count: int) -> list[Round]:
        """Work off a backlog so often."""
        self._callers = max(CALLERS, key=lambda callers: self._load(self._sync, callers, SYNC_S).rate)
        blocker = self._node.route("blocker", "http", type="async", memory=BLOCKER_MIB, timeout=3600)
        found, before = [], self.sync()
        for _ in range(count):
            self._block(blocker)
            base = self._completed()
            enqueued = self._load(self.later, CLIENTS, ENQUEUE_S)
            accepted = enqueued.requests
            while accepted < backlog + WARM_UP + MEASURED:
                accepted += self._load(self.later, CLIENTS, ENQUEUE_S).requests
            complete, complete_us = self.complete()
            while self._completed() < base + accepted:
                time.sleep(0.02)
            after = self.sync()
            found.append(
                Round(
                    statistics.fmean([before.rate, after.rate]),
                    enqueued.rate,
                    complete,
                    statistics.fmean([before.cpu_us, after.cpu_us]),
                    complete_us,
                )
            )
            before = after
        return found

    def million(self) -> Round:
        """What was put into the queue beforehand, behind a blocker."""
        self._callers = CALLERS[1]
        self.sync()
        before = self.sync()
        enqueued = self._load(self.later, CLIENTS, ENQUEUE_S)
        complete, complete_us = self.complete()
        return Round(before.rate, enqueued.rate, complete, before.cpu_us, complete_us)

    def sync(self) -> Result:
        """Sync calls, once their containers are there."""
        self._load(self._sync, self._callers, SYNC_S / 2)
        return self._load(self._sync, self._callers, SYNC_S)

    def complete(self) -> tuple[float, float]:
        """Calls per second that end while a backlog is worked off, and what one costs the node."""
        base = self._completed()
        kill_functions(self._pid)  # the blocker among them
        while (first := self._completed()) < base + WARM_UP:
            time.sleep(0.02)
        begun, spent = time.perf_counter(), cpu_seconds(self._pid)
        while (last := self._completed()) < base + WARM_UP + MEASURED:
            time.sleep(0.02)
        seconds, cpu = time.perf_counter() - begun, cpu_seconds(self._pid) - spent
        return (last - first) / seconds, cpu * 1e6 / (last - first)

    def wake_ups_ms(self) -> list[float]:
        """Milliseconds from each 202 to the start of its call, on a node that has nothing else to do."""
        self._node.ended(self._node.call(self.later, echo="x"))
        taken = []
        for _ in range(WAKE_UPS):
            answer = self._node.call(self.later, echo="x")
            accepted = dt.datetime.now(dt.UTC)
            started = dt.datetime.fromisoformat(self._node.ended(answer)["started_at"])
            taken.append(max(0.0, (started - accepted).total_seconds() * 1000))
        return sorted(taken)

    def _load(self, path: str, connections: int, seconds: float) -> Result:
        found = load(self._node.url + path, self._pid, connections=connections, seconds=seconds)
        if found.errors:
            raise SystemExit(f"bench: {found.errors} calls of {path} failed")
        return found

    def _completed(self) -> int:
        """Calls that have ended well since the node's start."""
        return int(self._node.http.get("/stats").json()["Complete"])

    def _block(self, blocker: str) -> None:
        """Have one call hold the memory of all async calls."""
        answer = self._node.call(blocker, sleep_ms=3_600_000)
        while self._node.record(answer)["status"] != "running":
            time.sleep(0.01)


def kill_functions(pid: int) -> None:
    """End whatever runs on a node."""
    for leaf in leaves_below(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(leaf, signal.SIGKILL)


async def fill(url: str, image: str, count: int) -> None:
    """Put calls into a queue that no node has opened; the first of them is the blocker."""
    clock = SystemClock()
    next_id = IdGenerator(0, clock.now_ns)
    queue = await open_queue(url, clock)
    blocker = _call(image, "/blocker", BLOCKER_MIB, next_id(), b'{"sleep_ms":3600000}')
    blocker.priority = 2
    await queue.push([blocker])
    for _ in range(0, count, 1000):
        await queue.push([_call(image, "/later", FUNCTION_MIB, next_id(), BODY) for _ in range(1000)])
    await queue.close()


def _call(image: str, path: str, memory: int, call_id: str, body: bytes) -> Call:
    fields: dict[str, Any] = {"format": "http", "type": "async", "timeout": 3600, "idle_timeout": 30}
    route = Route(app_name="e2e", path=path, image=image, memory=memory, **fields)
    spec = compile_route(App(name="e2e"), route, LIMITS)
    url = f"http://127.0.0.1/r/e2e{path}"
    call = Call.of(spec, call_id, dt.datetime.now(dt.UTC), method="POST", url=url, headers={})
    call.status, call.payload = QUEUED, body
    return call


def measure(kind: str, backlog: int, url: str, data: Path, image: str, count: int) -> None:
    """Print one row."""
    filled = backlog >= MILLION
    if filled:
        uvloop.run(fill(url, image, backlog))
    environment = {"FN_MQ_URL": url, "FN_MAX_TOTAL_MEMORY": str(TOTAL_MIB << 20), "FN_LOG_LEVEL": "error"}
    with running_node("process", data, image, **environment) as node:
        bench = Bench(node)
        wake_ups = [] if filled else bench.wake_ups_ms()
        rounds = [bench.million()] if filled else bench.rounds(backlog, count)
    rates = [one.complete / one.sync for one in rounds]
    sync_us = statistics.median(one.sync_us for one in rounds)
    complete_us = statistics.median(one.complete_us for one in rounds)
    latency = f"{wake_ups[len(wake_ups) // 2]:.0f} | {wake_ups[int(len(wake_ups) * 0.99)]:.0f}" if wake_ups else " | "
    print(
        f"| {kind} | {backlog} | {statistics.median(one.enqueue / one.sync for one in rounds):.2f} "
        f"| {statistics.median(rates):.2f} | {min(rates):.2f} to {max(rates):.2f} "
        f"| {sync_us:.0f} | {complete_us:.0f} | {latency} |",
        flush=True,
    )


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", action="store_true")
    chosen = parser.parse_args()
    backlogs = chosen.backlog or [0, 10_000, *([MILLION] if chosen.million else [])]
    print(
        "| queue | backlog | enqueue / sync | complete / sync | spread | us CPU, sync | us CPU, complete "
        "| wake-up p50, ms | p99, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in chosen.queue or QUEUES:
        for backlog in backlogs:
            if backlog >= MILLION and kind not in DURABLE:
                continue
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder)
                image = build_multi(data, data / "source")
                with queue_url(kind, data) as url:
                    measure(kind, backlog, url, data, image, chosen.rounds)


if __name__ == "__main__":
    main()
