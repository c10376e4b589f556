"""Two nodes, one Redis, one PostgreSQL: what is accepted by either ends once, also when a node dies or sleeps."""

from __future__ import annotations

import concurrent.futures
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import databases
from tests.support.async_probe import Probe, all_ended, judge
from tests.support.node import WITNESS, RunningNode, build_bundle, running_node
from tests.support.redis_server import RedisServer, running_redis
from tests.support.servers import Server
from tests.support.waiting import until
from tests.support.witness import watching

CALLS = 200


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def environment(postgres_server: Server, redis: RedisServer) -> AsyncIterator[dict[str, str]]:
    """What both nodes are told."""
    async with databases.made("postgres", postgres_server) as url:
        yield {
            "FN_DB_URL": url,
            "FN_MQ_URL": redis.url(),
            "FN_MQ_VISIBILITY_S": "1",
            "FN_MAX_TOTAL_MEMORY": str(1000 << 20),
        }


def place(tmp_path: Path, name: str) -> tuple[Path, str]:
    """A node's own folder, with the function."""
    data = tmp_path / name
    data.mkdir()
    return data, build_bundle(data, data / "source", WITNESS)


def test_calls_are_spread_over_two_nodes_and_outlive_one(
    tmp_path: Path, environment: dict[str, Any], redis: RedisServer
) -> None:
    """Guards: leases; the compare and swap of the start; records that are shared."""
    with (
        watching() as witness,
        running_node("process", *place(tmp_path, "mortal"), **environment) as mortal,
        running_node("process", *place(tmp_path, "other"), **environment) as other,
        concurrent.futures.ThreadPoolExecutor(5) as pool,
    ):
        path = other.route("watched", "http", type="async", timeout=60, memory=64, config={"WITNESS": witness.address})
        probe = Probe([mortal.url, other.url], path, CALLS)
        threads = [*[pool.submit(probe.call_on, number) for number in range(4)], pool.submit(probe.look_on)]
        try:
            probe.wait_for(CALLS // 2)
            assert until(lambda: _completed(mortal) > 0 and _completed(other) > 0)
            mortal.process.send_signal(signal.SIGKILL)
            concurrent.futures.wait(threads[:4])
            records = all_ended(other)
        finally:
            probe.done.set()
        for thread in threads:
            thread.result()
        _until_empty(redis)
    judge(probe, witness, records)


def test_a_node_that_slept_past_its_lease_changes_no_end_that_was_recorded(
    tmp_path: Path, environment: dict[str, Any], redis: RedisServer
) -> None:
    """Guard: the compare and swap of the end."""
    data, image = place(tmp_path, "sleeper")
    with watching() as witness, running_node("process", data, image, **environment) as sleeper:
        path = sleeper.route(
            "watched", "http", type="async", timeout=60, memory=64, config={"WITNESS": witness.address}
        )
        witness.go.clear()
        answer = sleeper.http.post(path, content=b"0")
        call_id = answer.json()["call_id"]
        assert until(lambda: witness.executions[call_id] > 0)
        with running_node("process", *place(tmp_path, "other"), **environment) as other:
            sleeper.process.send_signal(signal.SIGSTOP)
            try:
                call = other.ended(answer)
            finally:
                sleeper.process.send_signal(signal.SIGCONT)
                witness.go.set()
            assert "the server stopped while the call was running" in call["error"]
            told = "recorded by another node before"
            assert until(lambda: told in (data / "server.log").read_text())
            assert other.record(answer) == call
            assert sleeper.record(answer) == call
            _until_empty(redis)
        assert witness.executions == {call_id: 1}


def _completed(node: RunningNode) -> int:
    return int(node.http.get("/stats").json()["Complete"])


def _until_empty(redis: RedisServer) -> None:
    """Until no message is left: the end of a call is recorded a moment before."""
    with redis.client() as client:
        assert until(lambda: client.hlen("/hearth:calls") == 0)
