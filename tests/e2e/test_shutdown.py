"""How a node says whether it wants work, and how it leaves: what was answered is kept, nothing hangs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.support.held import holding, listens
from tests.support.node import PHASES, RunningNode, build_bundle, build_multi, running_node
from tests.support.raw_http import RawClient
from tests.support.redis_server import running_redis
from tests.support.waiting import until
from tests.support.witness import watching


def _get(raw: RawClient, path: str) -> tuple[int, bytes, str]:
    raw.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = raw.answer()
    assert answer
    return answer.status, answer.body, answer.headers.get("connection", "")


def test_a_node_says_whether_it_lives_and_is_ready(tmp_path: Path) -> None:
    pages = {"Origin": "https://ui.example"}
    with (
        running_redis(tmp_path / "redis") as redis,
        running_node("process", tmp_path, "none:1", FN_MQ_URL=redis.url(), FN_API_CORS=pages["Origin"]) as node,
    ):
        ready = node.http.get("/readyz", headers=pages)
        assert (ready.status_code, ready.json()) == (
            200,
            {"ready": True, "node": "ok", "database": "ok", "queue": "ok", "data": "ok", "driver": "ok", "async": "ok"},
        )
        assert ready.headers["access-control-allow-origin"] == pages["Origin"]
        assert node.http.get("/readyz", headers={"Origin": "http://other"}).status_code == 403
        redis.kill()
        assert until(lambda: node.http.get("/readyz").status_code == 503)
        told = node.http.get("/readyz").json()
        assert (told["ready"], told["database"], told["driver"]) == (False, "ok", "ok")
        assert told["queue"] != "ok"
        assert node.http.get("/healthz").json() == {"status": "ok"}  # it lives: nobody shall kill it for that


def test_a_draining_node_tells_old_connections_to_go_elsewhere(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node, concurrent.futures.ThreadPoolExecutor(1) as pool:
        path = node.route("slow", "http")
        with RawClient(node.url) as idle, holding(node, path, echo="finished") as busy:
            assert _get(idle, "/version")[2] == ""
            stopped = pool.submit(node.stop)
            assert idle.is_closed()
            answer = busy.let_go()
            assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"finished", "close")
            assert busy.is_closed()
        assert stopped.result() == 0


def test_calls_that_wait_are_told_to_come_back_when_the_node_leaves(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with (
        running_node("process", tmp_path, image, FN_MAX_TOTAL_MEMORY=str(500 << 20)) as node,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        path = node.route("one", "http", memory=300, timeout=120)
        with holding(node, path, echo="finished") as running:
            waiting = [pool.submit(node.call, path, echo="never") for _ in range(2)]
            assert until(lambda: node.http.get("/stats").json()["Queue"] == 2)
            node.process.send_signal(signal.SIGTERM)
            assert {call.result().status_code for call in waiting} == {503}  # they did not wait for it
            assert running.let_go().body == b"finished"
        assert node.process.wait(60) == 0


def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node, concurrent.futures.ThreadPoolExecutor(1) as pool:
        path = node.route("slow", "http", timeout=100)
        running = pool.submit(node.call, path, sleep_ms=90_000)
        assert until(lambda: node.http.get("/stats").json()["Running"] == 1)
        log = tmp_path / "server.log"
        node.process.send_signal(signal.SIGTERM)
        assert until(lambda: "waiting for running calls; a second signal aborts them" in log.read_text())
        assert "calls=1 routes=e2e/slow up_to_s=150" in log.read_text()
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(60) == 0
        assert running.exception() or running.result().status_code == 500
    assert _statuses(tmp_path) == ["error"]
    assert "Traceback" not in log.read_text()
    assert "level=error" not in log.read_text()


def test_a_start_and_an_end_without_calls_warn_of_nothing(tmp_path: Path) -> None:
    memory, cpu = str(4 << 30), "1000"
    with running_node("process", tmp_path, "none:1", FN_MAX_TOTAL_MEMORY=memory, FN_MAX_TOTAL_CPU=cpu) as node:
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(60) == 0
    log = (tmp_path / "server.log").read_text()
    assert "limited resources" not in log
    assert "waiting" not in log


STOPPABLE = """
import asyncio
from hearth import nodes, settings

def announce(node, listeners):
    print("  url     " + listeners[0].url)
    print("  driver  " + node.driver, flush=True)

wanted = settings.load(log_level="error")
asyncio.run(nodes.serve(wanted, announce, nodes.Options(shutdown_endpoint=True)))
"""


def test_code_may_let_a_request_stop_its_node(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "none:1", command=[sys.executable, "-c", STOPPABLE]) as node:
        assert node.http.post("/shutdown").status_code == 404
        answer = node.http.get("/shutdown")
        assert (answer.status_code, answer.text) == (200, '"shutting down"')
        assert node.process.wait(60) == 0


def test_nobody_else_may(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "none:1") as node:
        assert node.http.get("/shutdown").status_code == 404
        assert node.http.get("/version").status_code == 200


PHASES_OF_A_CALL = ("accepted", "starting", "running", "answering", "recording")


def test_a_call_ends_well_in_whichever_phase_its_node_is_told_to_leave(tmp_path: Path) -> None:
    image = build_bundle(tmp_path, tmp_path / "source", PHASES)
    with (
        contextlib.ExitStack() as stack,
        watching() as witness,
        running_node("process", tmp_path, image) as node,
        contextlib.closing(sqlite3.connect(tmp_path / "fn.db", isolation_level=None)) as database,
    ):
        for phase in PHASES_OF_A_CALL:
            node.route(phase, "http", timeout=120, config={"WITNESS": witness.address, "HOLD": phase})
        calls = {phase: stack.enter_context(RawClient(node.url)) for phase in PHASES_OF_A_CALL}
        witness.go.clear()
        database.execute("BEGIN IMMEDIATE")  # nothing is recorded meanwhile
        bodies = dict(zip(PHASES_OF_A_CALL, PHASES_OF_A_CALL, strict=True))
        bodies["accepted"] *= 1 << 14  # a shorter one would be read before the call takes a container
        for phase, raw in calls.items():
            sent = bodies[phase][:-1] if phase == "accepted" else bodies[phase]
            head = f"POST /r/e2e/{phase} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(bodies[phase])}\r\n\r\n"
            raw.send(head + sent)
        assert until(lambda: all(witness.running[phase] for phase in PHASES_OF_A_CALL[1:]))
        assert until(lambda: node.http.get("/stats").json()["FunctionStatsMap"]["/accepted"]["Running"] == 1)
        node.process.send_signal(signal.SIGTERM)
        assert until(lambda: not listens(node))
        calls["accepted"].send(bodies["accepted"][-1])
        witness.go.set()
        database.execute("ROLLBACK")
        answers = {phase: raw.answer() for phase, raw in calls.items()}
        assert node.process.wait(60) == 0
    told = {phase: (answer.status, answer.body.decode()) for phase, answer in answers.items() if answer is not None}
    assert told == {phase: (200, 2 * bodies[phase]) for phase in PHASES_OF_A_CALL}
    assert _statuses(tmp_path) == ["success"] * len(PHASES_OF_A_CALL)
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("seed", range(1, 3))
def test_whenever_a_node_is_told_to_leave_it_does_and_keeps_what_it_answered(tmp_path: Path, seed: int) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    chance = random.Random(seed)
    with running_node("process", tmp_path, image) as node, concurrent.futures.ThreadPoolExecutor(8) as pool:
        path = node.route("busy", "http")
        node.call(path, echo="warm")
        load = [pool.submit(_call_until_gone, node, path, chance.choice([0, 0, 5, 60])) for _ in range(8)]
        time.sleep(chance.uniform(0, 0.4))  # the instant is what is tried
        assert node.stop() == 0
        answered = [call_id for calls in load for call_id in calls.result()]
    with sqlite3.connect(tmp_path / "fn.db") as database:
        kept = dict(database.execute("SELECT id, status FROM calls"))
    assert {kept.get(call_id) for call_id in answered} <= {"success"}
    assert set(kept.values()) <= {"success"}
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def _call_until_gone(node: RunningNode, path: str, sleep_ms: int) -> list[str]:
    """Call until the node refuses or is gone; the ids of what it answered well."""
    ids: list[str] = []
    with httpx.Client(base_url=node.url, timeout=60) as client:
        while True:
            try:
                answer = client.post(path, json={"sleep_ms": sleep_ms, "echo": "x"})
            except httpx.TransportError:
                return ids
            if answer.status_code == 503:
                return ids
            assert (answer.status_code, answer.text) == (200, "x")
            ids.append(answer.headers["fn_call_id"])


def _statuses(data: Path) -> list[str]:
    with sqlite3.connect(data / "fn.db") as database:
        return [status for (status,) in database.execute("SELECT status FROM calls")]
