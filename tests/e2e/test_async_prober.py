"""Accepted calls while the server, Redis and functions are killed at random: none is lost, none runs twice.

The moments are counts of accepted calls, not times. HEARTH_PROBE_CALLS sets how many calls are made (a night run takes
10000), HEARTH_PROBE_SEED repeats a run.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.node import WITNESS, RunningNode, build_bundle, running_node
from tests.support.processes import leaves_below
from tests.support.redis_server import RedisServer, running_redis
from tests.support.witness import Witness, watching

CLIENTS = 4
LEGAL = {"queued": 0, "running": 1, "success": 2, "error": 2, "timeout": 2}
#: Why a call may end as an error here: its server died, or its function was killed.
EXCUSES = ("the server stopped while the call was running", "container exit code", "container out of memory")


class Platform:
    """A node on one port, with what it needs, that is killed and started again."""

    def __init__(self, data: Path, image: str, redis: RedisServer | None) -> None:
        self.redis = redis
        self._data = data
        self._image = image
        self._stack = contextlib.ExitStack()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.node: RunningNode

    def start(self) -> None:
        """Start the node."""
        environment = {
            "FN_PORT": str(self.port),
            "FN_MQ_VISIBILITY_S": "1",
            "FN_MAX_TOTAL_MEMORY": str(1000 << 20),
        }
        if self.redis is not None:
            environment["FN_MQ_URL"] = self.redis.url()
        node = running_node("process", self._data, self._image, **environment)
        self.node = self._stack.enter_context(node)

    def stop(self) -> None:
        """Stop the node as an operator would."""
        self._stack.close()

    def kill_server(self) -> None:
        """End the node without a warning, and start it again."""
        self.node.process.send_signal(signal.SIGKILL)
        self._stack.close()
        self.start()

    def kill_redis(self) -> None:
        """End Redis without a warning, and start it again."""
        assert self.redis is not None
        self.redis.kill()
        self.redis.start()

    def kill_function(self) -> None:
        """End one of the functions' processes, if there is one."""
        if found := leaves_below(self.node.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)

    def unsettled(self) -> int:
        """Messages that are left when the node has stopped."""
        if self.redis is not None:
            with self.redis.client() as client:
                return int(client.hlen("/hearth:calls"))
        with contextlib.closing(sqlite3.connect(self._data / "fn.mq")) as db:
            return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])


class Probe:
    """Makes calls from several threads, and looks at them, whatever happens to the server."""

    def __init__(self, url: str, path: str, wanted: int) -> None:
        self.accepted: list[str] = []
        self.refused = 0
        self.violations: list[str] = []
        self.done = threading.Event()
        self._url, self._path, self._wanted = url, path, wanted
        self._changed = threading.Condition()

    def call_on(self, number: int) -> None:
        """Make calls until there are enough."""
        dice = random.Random(number)
        with httpx.Client(base_url=self._url, timeout=30) as http:
            while len(self.accepted) < self._wanted and not self.done.is_set():
                body = f"{dice.choice((0, 0, 0.01, 0.05)):.2f}"
                with contextlib.suppress(httpx.TransportError):
                    answer = http.post(self._path, content=body)
                    if answer.status_code == 202:
                        with self._changed:
                            self.accepted.append(answer.json()["call_id"])
                            self._changed.notify_all()
                        continue
                self.refused += 1
                self.done.wait(0.02)

    def wait_for(self, accepted: int) -> None:
        """Until so many calls have been accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.accepted) >= accepted, 60), len(self.accepted)

    def look_on(self) -> None:
        """Whatever was accepted is queued, running or ended at every look, and never goes back."""
        seen: dict[str, str] = {}
        dice = random.Random(0)
        with httpx.Client(base_url=self._url, timeout=30) as http:
            while not self.done.is_set():
                if not self.accepted:
                    self.done.wait(0.01)
                    continue
                call_id = dice.choice(self.accepted[-200:])
                with contextlib.suppress(httpx.TransportError):
                    self._check(call_id, http.get(f"/v1/apps/e2e/calls/{call_id}"), seen)
                    continue
                self.done.wait(0.02)

    def _check(self, call_id: str, answer: httpx.Response, seen: dict[str, str]) -> None:
        status = answer.json()["call"]["status"] if answer.status_code == 200 else f"HTTP {answer.status_code}"
        before = seen.get(call_id, "queued")
        if status not in LEGAL or LEGAL[status] < LEGAL[before] or (LEGAL[before] == 2 and status != before):
            self.violations.append(f"{call_id}: {before} -> {status}")
        else:
            seen[call_id] = status


@pytest.fixture(params=[("bolt", 600), ("redis", 400)], ids=["bolt", "redis"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Platform, int]]:
    kind, calls = request.param
    image = build_bundle(tmp_path, tmp_path / "source", WITNESS)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(running_redis(tmp_path / "redis")) if kind == "redis" else None
        platform = Platform(tmp_path, image, redis)
        platform.start()
        stack.callback(platform.stop)
        yield platform, int(os.environ.get("HEARTH_PROBE_CALLS", calls))


def test_sudden_deaths_lose_no_accepted_call_and_run_none_twice(setting: tuple[Platform, int]) -> None:
    """Guards: durable before 202; leases; the compare and swap of the start; settled only after the record."""
    platform, wanted = setting
    seed = int(os.environ.get("HEARTH_PROBE_SEED", random.randrange(1 << 32)))
    print(f"HEARTH_PROBE_SEED={seed}")
    with watching() as witness:
        path = platform.node.route(
            "watched", "http", type="async", timeout=60, memory=64, config={"WITNESS": witness.address}
        )
        probe = Probe(platform.node.url, path, wanted)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS + 1) as pool:
            threads = [pool.submit(probe.call_on, number) for number in range(CLIENTS)]
            threads.append(pool.submit(probe.look_on))
            try:
                _torment(platform, probe, wanted, random.Random(seed))
                concurrent.futures.wait(threads[:CLIENTS])
                records = _all_ended(platform.node)
            finally:
                probe.done.set()
        for thread in threads:
            thread.result()
    platform.stop()
    _judge(probe, witness, records)
    assert platform.unsettled() == 0


def _torment(platform: Platform, probe: Probe, wanted: int, dice: random.Random) -> None:
    kinds: list[Callable[[], None]] = [platform.kill_server, platform.kill_function]
    if platform.redis is not None:
        kinds.append(platform.kill_redis)
    times = max(6, wanted // 200)
    deaths = [kinds[number % len(kinds)] for number in range(times)]
    dice.shuffle(deaths)
    for moment, death in zip(sorted(dice.sample(range(1, wanted), times)), deaths, strict=True):
        probe.wait_for(moment)
        death()


def _all_ended(node: RunningNode) -> dict[str, dict[str, str]]:
    """Every record, once none of them is queued or running: also of calls whose 202 was lost on its way."""
    deadline = time.monotonic() + 120
    while True:
        records = {call["id"]: call for call in _listed(node)}
        left = [call for call in records.values() if call["status"] in ("queued", "running")]
        if not left:
            return records
        assert time.monotonic() < deadline, left[:3]
        time.sleep(0.1)


def _listed(node: RunningNode) -> Iterator[dict[str, str]]:
    cursor = ""
    while True:
        page = node.http.get("/v1/apps/e2e/calls", params={"per_page": 100, "cursor": cursor}).json()
        yield from page["calls"]
        cursor = page["next_cursor"]
        if not cursor:
            return


def _judge(probe: Probe, witness: Witness, records: dict[str, dict[str, str]]) -> None:
    print(
        f"accepted {len(probe.accepted)}, refused {probe.refused}, recorded {len(records)}, "
        f"{dict(collections.Counter(call['status'] for call in records.values()))}"
    )
    assert probe.violations == []
    assert len(set(probe.accepted)) == len(probe.accepted)
    assert set(probe.accepted) - set(records) == set()
    assert witness.twice_at_once == []
    assert {call_id: times for call_id, times in witness.executions.items() if times > 1} == {}
    for call_id, call in records.items():
        if call["status"] == "success":
            assert witness.executions[call_id] == 1, call
        else:
            assert call["status"] == "error", call
            assert call["error"].startswith(EXCUSES), call
    assert any(call["status"] == "success" for call in records.values())
