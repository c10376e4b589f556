"""Accepted calls while server, Redis, PostgreSQL and functions die at random: none is lost, no attempt runs twice.

Some are cancelled, those that fail are tried again, and what fails for good is redriven. Requests with an idempotency
key are repeated, and become one call each. A schedule fires every second: each firing is one call.

The moments are counts of accepted calls, not times. HEARTH_PROBE_CALLS sets how many calls are made (a night run takes
10000), HEARTH_PROBE_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import itertools
import os
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support import databases, servers
from tests.support.async_probe import Probe, all_ended, judge
from tests.support.node import WITNESS, RunningNode, build_bundle, running_node
from tests.support.processes import leaves_below
from tests.support.redis_server import RedisServer, running_redis
from tests.support.servers import Server
from tests.support.waiting import until
from tests.support.witness import watching

from hearth.models.times import parse_time

CLIENTS = 4
LEASE_S = 1


class Platform:
    """A node on one port, with what it needs, that is killed and started again."""

    def __init__(self, data: Path, image: str, redis: RedisServer | None, postgres: Server | None) -> None:
        self.redis = redis
        self.postgres = postgres
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
            "FN_MQ_VISIBILITY_S": str(LEASE_S),
            "FN_MAX_TOTAL_MEMORY": str(1000 << 20),
        }
        if self.redis is not None:
            environment["FN_MQ_URL"] = self.redis.url()
        if self.postgres is not None:
            environment["FN_DB_URL"] = databases.url("postgres", self.postgres)
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

    def kill_postgres(self) -> None:
        """End PostgreSQL without a warning, and start it again."""
        assert self.postgres is not None
        self.postgres.stop()
        self.postgres.start()

    def kill_function(self) -> None:
        """End one of the functions' processes, if there is one."""
        if found := leaves_below(self.node.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)

    def firings(self, statement: str = "SELECT due, call_id, state FROM firings ORDER BY due") -> list[Any]:
        """Return the firings of schedules: due, call and state."""
        address = f"sqlite3://{self._data}/fn.db"
        if self.postgres is not None:
            address = databases.url("postgres", self.postgres)

        async def execute() -> list[Any]:
            async with databases.transaction(address) as connection:
                found = await connection.execute(sa.text(statement))
                return list(found.all()) if found.returns_rows else []

        return asyncio.run(execute())

    def finish_firings(self) -> None:
        """Let the node make the calls of firings that another life of it has claimed. It does after a minute."""
        self.stop()
        self.firings("UPDATE firings SET claimed_at = '2000-01-01T00:00:00.000Z' WHERE state = 'claimed'")
        self.start()
        assert until(lambda: {state for _, _, state in self.firings()} == {"accepted"})

    def stop_when_settled(self, limit_s: float = 60) -> int:
        """Stop the node; how many messages are left.

        A message that its node did not live to settle comes back when its lease ends, to the node of then.
        """
        deadline = time.monotonic() + limit_s
        while True:
            self.stop()
            if (left := self.unsettled()) == 0 or time.monotonic() > deadline:
                return left
            self.start()
            time.sleep(LEASE_S)

    def unsettled(self) -> int:
        """Messages that are left when the node has stopped."""
        if self.redis is not None:
            with self.redis.client() as client:
                return int(client.hlen("/hearth:calls"))
        with contextlib.closing(sqlite3.connect(self._data / "fn.mq")) as db:
            return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])


@pytest.fixture(params=[("bolt", 600), ("redis", 400)], ids=["bolt", "redis"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Platform, int]]:
    kind, calls = request.param
    image = build_bundle(tmp_path, tmp_path / "source", WITNESS)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(running_redis(tmp_path / "redis")) if kind == "redis" else None
        postgres = None
        if kind == "redis":
            place = stack.enter_context(databases.folder())
            postgres = stack.enter_context(servers.postgres(place, durable=True))
        platform = Platform(tmp_path, image, redis, postgres)
        platform.start()
        stack.callback(platform.stop)
        yield platform, int(os.environ.get("HEARTH_PROBE_CALLS", calls))


def test_sudden_deaths_lose_no_accepted_call_and_run_no_attempt_twice(setting: tuple[Platform, int]) -> None:
    """Guards: durable before 202; leases; the compare and swap of the start; settled only after the record."""
    platform, wanted = setting
    seed = int(os.environ.get("HEARTH_PROBE_SEED", random.randrange(1 << 32)))
    print(f"HEARTH_PROBE_SEED={seed}")
    with watching() as witness:
        config, retry = {"WITNESS": witness.address}, {"attempts": 3, "backoff_s": 0, "on": ["error"]}
        path = platform.node.route("watched", "http", type="async", timeout=60, memory=64, config=config, retry=retry)
        schedule = {"route": "/watched", "every": "1s", "payload": "0", "if_missed": "all"}
        _put_schedule(platform, schedule)
        outages = platform.postgres is not None
        probe = Probe([platform.node.url], path, wanted, cancels=0.1, retries=True, keys=0.05, outages=outages)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS + 1) as pool:
            threads = [pool.submit(probe.call_on, number) for number in range(CLIENTS)]
            threads.append(pool.submit(probe.look_on))
            try:
                _torment(platform, probe, wanted, random.Random(seed))
                concurrent.futures.wait(threads[:CLIENTS])
                _put_schedule(platform, {**schedule, "enabled": False})
                platform.finish_firings()
                dead = {one for one, call in all_ended(platform.node).items() if call.get("dead")}
                records = _redriven(platform.node, dead)
            finally:
                probe.done.set()
        for thread in threads:
            thread.result()
    assert platform.stop_when_settled() == 0
    judge(probe, witness, records)
    _judge_firings(platform.firings(), records)


def _put_schedule(platform: Platform, schedule: dict[str, Any]) -> None:
    answer = platform.node.http.put("/v1/apps/e2e/schedules/ticks", json={"schedule": schedule})
    assert answer.status_code == 200, answer.text


def _judge_firings(firings: list[Any], records: dict[str, dict[str, Any]]) -> None:
    """Each second has one firing, and each firing one call."""
    dues = [parse_time(due) for due, _, _ in firings]
    assert len(dues) > 2
    assert [later - due for due, later in itertools.pairwise(dues)] == [dt.timedelta(seconds=1)] * (len(dues) - 1)
    scheduled = [call_id for call_id, call in records.items() if call.get("origin") == "schedule ticks"]
    assert sorted(call_id for _, call_id, _ in firings) == sorted(scheduled)
    print(f"{len(firings)} firings, each one call")


def _redriven(node: RunningNode, dead: set[str]) -> dict[str, dict[str, Any]]:
    """Run what failed for good again; return all records. Each dead letter becomes one call."""
    done = node.http.post("/v1/apps/e2e/dead-letters/redrive").json()
    assert done == {"redriven": len(dead), "skipped": 0, "next_cursor": ""}
    records = all_ended(node)
    assert sorted(call["origin"] for call in records.values() if _is_redriven(call)) == [
        f"redrive {call_id}" for call_id in sorted(dead)
    ]
    return records


def _is_redriven(call: dict[str, Any]) -> bool:
    return call.get("origin", "").startswith("redrive ")


def _torment(platform: Platform, probe: Probe, wanted: int, dice: random.Random) -> None:
    kinds: list[Callable[[], None]] = [platform.kill_server, platform.kill_function]
    if platform.redis is not None:
        kinds.append(platform.kill_redis)
    if platform.postgres is not None:
        kinds.append(platform.kill_postgres)
    times = max(6, wanted // 200)
    deaths = [kinds[number % len(kinds)] for number in range(times)]
    dice.shuffle(deaths)
    for moment, death in zip(sorted(dice.sample(range(1, wanted), times)), deaths, strict=True):
        probe.wait_for(moment)
        death()
