"""What is promised of async calls, seen by a client of a node as a process."""

from __future__ import annotations

import concurrent.futures
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.node import WITNESS, RunningNode, build_bundle, running_node
from tests.support.redis_server import RedisServer, running_redis
from tests.support.waiting import until
from tests.support.witness import watching

MEMORY_MIB = 1000
#: Of which 20 % are kept for sync calls.
ASYNC_MIB = 800


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A small node whose leases are short and whose bodies are limited."""
    data = tmp_path_factory.mktemp("promises")
    image = build_bundle(data, data / "source", WITNESS)
    environment = {
        "FN_MAX_TOTAL_MEMORY": str(MEMORY_MIB << 20),
        "FN_MQ_VISIBILITY_S": "2",
        "FN_MAX_REQUEST_SIZE": "1000",
    }
    with running_node("process", data, image, **environment) as running:
        yield running


def test_accepted_calls_are_queued_running_or_ended_at_every_look(node: RunningNode) -> None:
    """Guard: the record is made before the 202, and each change of it is a compare and swap or final."""
    with watching() as witness, concurrent.futures.ThreadPoolExecutor(5) as pool:
        path = node.route("looked-at", "http", type="async", memory=64, config={"WITNESS": witness.address})
        accepted: list[str] = []
        made = threading.Event()

        def make(_number: int) -> None:
            for _ in range(50):
                answer = node.http.post(path, content=b"0.005")
                assert answer.status_code == 202
                accepted.append(answer.json()["call_id"])

        def look() -> int:
            looks, rank = 0, {"queued": 0, "running": 1, "success": 2}
            seen: dict[str, int] = {}
            while not made.is_set() or any(seen.get(one) != 2 for one in accepted):
                before = set(accepted)
                now = {call["id"]: rank[call["status"]] for call in _calls(node, "/looked-at")}
                assert before <= set(now)
                assert all(now[one] >= seen.get(one, 0) for one in before)
                seen = now
                looks += 1
            return looks

        looking = pool.submit(look)
        list(pool.map(make, range(4)))
        made.set()
        assert looking.result() > 3
        assert witness.executions == dict.fromkeys(accepted, 1)


def test_a_job_longer_than_its_lease_runs_once(node: RunningNode) -> None:
    """Visibility 2 s, job 4 s. Guard: the renewal of leases."""
    with watching() as witness:
        path = node.route("long", "http", type="async", memory=64, config={"WITNESS": witness.address})
        answer = node.http.post(path, content=b"4")
        assert node.ended(answer)["status"] == "success"
        assert witness.executions == {answer.json()["call_id"]: 1}


def test_a_backlog_of_async_calls_leaves_the_reserve_to_sync_calls(node: RunningNode) -> None:
    """Guard: async calls are granted memory of the shared pool only."""
    with watching() as witness, watching() as other:
        memory = ASYNC_MIB // 4
        later = node.route("hog", "http", type="async", memory=memory, config={"WITNESS": witness.address})
        now = node.route("prompt", "http", memory=memory, config={"WITNESS": other.address})
        witness.go.clear()
        backlog = [node.http.post(later, content=b"0") for _ in range(8)]
        assert until(lambda: sum(witness.running.values()) >= 3)
        assert node.http.post(now, content=b"0").status_code == 200
        assert node.record(backlog[-1])["status"] == "queued"
        witness.go.set()
        assert {node.ended(answer)["status"] for answer in backlog} == {"success"}


def test_a_body_that_is_too_long_is_refused_and_no_call_exists(node: RunningNode) -> None:
    path = node.route("limited", "http", type="async", memory=64, config={"WITNESS": "127.0.0.1:1"})
    told = node.http.post(path, content=b"x" * 1001)
    assert told.status_code == 413
    assert told.json()["error"]["message"] == "Content-Length too large for this server, 1001 > max 1000"
    untold = node.http.post(path, content=iter([b"x" * 600, b"x" * 600]))
    assert untold.status_code == 413
    assert list(_calls(node, "/limited")) == []
    assert node.http.post(path, content=b"x" * 1000).status_code == 202


def test_what_an_older_or_a_newer_version_left_in_the_queue_holds_nobody_up(tmp_path: Path) -> None:
    image = build_bundle(tmp_path, tmp_path / "source", WITNESS)
    with running_node("process", tmp_path, image, FN_MAX_TOTAL_MEMORY=str(MEMORY_MIB << 20)):
        pass
    identity = {"app_name": "e2e", "path": "/poison", "created_at": "2026-01-01T00:00:00.000Z"}
    times = {"timeout": 30, "idle_timeout": 30}
    poison = [
        b"\x00not json",
        b'{"id":"anonymous"}',
        json.dumps({**identity, "id": "future", "payload": "?", "payload_encoding": "rot13"}).encode(),
        json.dumps({**identity, "id": "past", "env_vars": {"A": "1"}, "priority": None}).encode(),
        json.dumps({**identity, "id": "huge", "image": image, "type": "async", "memory": 8000, **times}).encode(),
    ]
    with sqlite3.connect(tmp_path / "fn.mq") as db:
        row = "INSERT INTO messages (priority, ready, visible_ms, call) VALUES (2, 1, 0, ?)"
        db.executemany(row, [(data,) for data in poison])
    db.close()
    environment = {"FN_MAX_TOTAL_MEMORY": str(MEMORY_MIB << 20), "FN_MQ_MAX_MISFITS": "1"}
    with (
        watching() as witness,
        running_node("process", tmp_path, image, **environment) as node,
    ):
        path = node.route("fine", "http", type="async", memory=64, config={"WITNESS": witness.address})
        assert node.ended(node.http.post(path, content=b"0"))["status"] == "success"
        ended = {call["id"]: call for call in _calls(node, "/poison")}
        assert {call_id: call["status"] for call_id, call in ended.items()} == dict.fromkeys(
            ("future", "past", "huge"), "error"
        )
        assert "rot13" in ended["future"]["error"]
        assert "needs 8000 MiB" in ended["huge"]["error"]
    log = (tmp_path / "server.log").read_text()
    assert log.count('msg="message cannot be read" app_name=unknown.app') == 2  # kept as dead letters
    with sqlite3.connect(tmp_path / "fn.mq") as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    db.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


def test_there_is_no_202_while_the_queue_is_away(tmp_path: Path, own_redis: RedisServer) -> None:
    """Guard: the answer waits for the queue's word."""
    image = build_bundle(tmp_path, tmp_path / "source", WITNESS)
    with watching() as witness, running_node("process", tmp_path, image, FN_MQ_URL=own_redis.url()) as node:
        path = node.route("away", "http", type="async", memory=64, config={"WITNESS": witness.address})
        before = node.http.post(path, content=b"0")
        assert node.ended(before)["status"] == "success"
        own_redis.kill()
        refused = [node.http.post(path, content=b"0") for _ in range(3)]
        assert {answer.status_code for answer in refused} == {500}
        own_redis.start()
        after = node.http.post(path, content=b"0")
        assert node.ended(after)["status"] == "success"
        ids = {answer.headers["fn_call_id"] for answer in (before, after)}
        assert {call["id"] for call in _calls(node, "/away")} == ids
        assert witness.executions == dict.fromkeys(ids, 1)
    assert own_redis.url() not in (tmp_path / "server.log").read_text()


def _calls(node: RunningNode, path: str) -> Iterator[dict[str, str]]:
    cursor = ""
    while True:
        parameters: dict[str, str | int] = {"path": path, "per_page": 100, "cursor": cursor}
        page = node.http.get("/v1/apps/e2e/calls", params=parameters).json()
        yield from page["calls"]
        cursor = page["next_cursor"]
        if not cursor:
            return
