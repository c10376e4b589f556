"""Async calls through HTTP, on every driver: accepted is never lost, and ends in exactly one record."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import httpx
from tests.support.held import listens
from tests.support.node import WITNESS, RunningNode, build_bundle, build_multi, running_node
from tests.support.waiting import until
from tests.support.witness import watching


def test_an_async_call_is_accepted_then_runs(node: RunningNode, any_format: str) -> None:
    path = node.route(f"later-{any_format}", any_format, type="async", headers={"X-Function": ["Test"]})
    answer = node.call(path, echo="done", say="a line")
    assert answer.status_code == 202
    assert answer.content == b'{"call_id":"%b"}' % answer.headers["fn_call_id"].encode()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-function"] == "Test"
    assert "xxx-fxlb-wait" not in answer.headers
    call = node.ended(answer)
    assert (call["status"], "error" in call) == ("success", False)
    assert call["created_at"] <= call["started_at"] <= call["completed_at"]
    log = node.log(answer)
    if any_format == "default":
        assert log in ("a line\ndone", "donea line\n")
    elif any_format in ("http", "http-stream"):
        assert "HTTP/1.1 200" in log
        assert log.replace("a line\n", "").endswith("\r\n\r\ndone")
    else:
        answered = log.replace("a line\n", "")
        assert json.loads(answered)["body"] == "done"
        assert answered.endswith("}\n")


def test_a_failing_async_call_is_recorded(node: RunningNode, any_format: str) -> None:
    call = node.ended(node.call(node.route(f"later-fails-{any_format}", any_format, type="async"), exit=3))
    gone = "error receiving function response: " if any_format == "http-stream" else ""
    assert (call["status"], call["error"]) == ("error", f"{gone}container exit code 3")


def test_an_async_call_beyond_its_deadline_is_recorded(node: RunningNode, hot: str) -> None:
    path = node.route(f"later-slow-{hot}", hot, type="async", timeout=1)
    assert node.ended(node.call(path, sleep_ms=60_000))["status"] == "timeout"
    node.route(f"later-slow-{hot}", hot, type="async", timeout=30)
    assert node.ended(node.call(path, echo="next"))["status"] == "success"


def test_an_async_call_of_a_missing_image_is_recorded_and_the_next_call_runs(node: RunningNode) -> None:
    missing = node.route("later-missing", "http", type="async", image="localhost:1/none:1")
    call = node.ended(node.http.post(missing))
    assert call["status"] == "error"
    assert call["error"].startswith("Failed to pull image 'localhost:1/none:1': ")
    assert node.ended(node.call(node.route("later-fine", "http", type="async"), echo="x"))["status"] == "success"


def test_an_async_function_sees_the_original_request(node: RunningNode) -> None:
    path = node.route("later-sees", "json", type="async")
    body = json.dumps({"tell": True})
    answer = node.http.put(f"{path}?a=1", content=iter([body.encode()]), headers={"X-Function": "Test"})
    assert node.ended(answer)["status"] == "success"
    told = json.loads(json.loads(node.log(answer))["body"])
    assert told["call"]["type"] == "async"
    assert told["call"]["protocol"]["method"] == "PUT"
    assert told["call"]["protocol"]["request_url"] == f"{node.url}{path}?a=1"
    assert told["headers"]["X-Function"] == ["Test"]
    assert told["body"] == body
    assert "Content-Length" not in told["headers"]
    assert told["id"] == answer.headers["fn_call_id"]
    assert told["env"]["FN_TYPE"] == "async"


def test_an_async_function_sees_the_original_length_and_type(node: RunningNode) -> None:
    path = node.route("later-sees-http", "http", type="async")
    body = json.dumps({"tell": True})
    answer = node.http.post(path, content=body, headers={"Content-Type": "text/x"})
    assert node.ended(answer)["status"] == "success"
    told = json.loads(node.log(answer).partition("\r\n\r\n")[2])
    assert told["body"] == body
    assert (told["headers"]["Content-Length"], told["headers"]["Content-Type"]) == ([str(len(body))], ["text/x"])


def test_a_binary_payload_survives(node: RunningNode) -> None:
    path = node.route("later-binary", "default", type="async")
    answer = node.http.post(path, content=b"\x80binary\xff")
    assert node.ended(answer)["status"] == "success"
    log = node.http.get(f"/v1/apps/e2e/calls/{answer.json()['call_id']}/log", headers={"accept": "text/plain"})
    assert log.content == b"\x80binary\xff"


def test_a_burst_of_async_calls_all_end(node: RunningNode, hot: str) -> None:
    path = node.route(f"later-burst-{hot}", hot, type="async")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: node.call(path, echo=f"answer {n}"), range(200)))
    assert {node.ended(answer)["status"] for answer in answers} == {"success"}
    for n, answer in enumerate(answers[:20]):
        assert f"answer {n}" in node.log(answer)


def test_a_call_that_outgrew_the_node_ends_as_an_error(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    environment = {"FN_MAX_TOTAL_MEMORY": str(2000 << 20)}
    with running_node("process", tmp_path, image, **environment) as node:
        path = node.route("big", "http", type="async", memory=1200, timeout=60)
        running = node.call(path, sleep_ms=60_000)
        assert until(lambda: node.record(running)["status"] == "running")
        queued = node.call(path, echo="x")  # no room for a second one
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
    environment = {"FN_MAX_TOTAL_MEMORY": str(500 << 20), "FN_MQ_VISIBILITY_S": "1", "FN_MQ_MAX_MISFITS": "1"}
    with running_node("process", tmp_path, image, **environment) as node:
        assert "needs 1200 MiB" in node.ended(queued)["error"]
        assert node.call(path, echo="x").status_code == 503


def detachable_fn(node: RunningNode) -> str:
    """Make a fn of the app of routes; its id."""
    app = node.http.get("/v1/apps/e2e").json()["app"]["id"]
    fn = {"app_id": app, "name": "detachable", "image": node.image, "timeout": 60}
    return str(node.http.post("/v2/fns", json=fn).json()["id"])


def detached(node: RunningNode, fn: str, **orders: Any) -> httpx.Response:
    """Call it for later; the answer, which names the call as that of a route does."""
    answer = node.http.post(f"/invoke/{fn}", json=orders, headers={"Fn-Invoke-Type": "detached"})
    assert answer.status_code == 202, answer.text
    answer.headers["fn_call_id"] = answer.headers["fn-call-id"]
    return answer


def test_sudden_death_loses_no_accepted_call_and_runs_none_twice(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    environment = {"FN_MQ_VISIBILITY_S": "2", "FN_MAX_TOTAL_MEMORY": str(1000 << 20)}
    with running_node("process", tmp_path, image, **environment) as node:
        slow = node.route("slow", "http", type="async", timeout=60)
        quick = node.route("quick", "http", type="async", timeout=60)
        running = [node.call(slow, sleep_ms=60_000) for _ in range(2)]
        assert until(lambda: {node.record(answer)["status"] for answer in running} == {"running"})
        fn = detachable_fn(node)
        running.append(detached(node, fn, sleep_ms=60_000))
        assert until(lambda: {node.record(answer)["status"] for answer in running} == {"running"})
        queued = [node.call(quick, sleep_ms=20, echo=str(n)) for n in range(100)]
        of_fn = [detached(node, fn, sleep_ms=20, say="ran") for _ in range(20)]
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
    with running_node("process", tmp_path, image, **environment) as node:
        for answer in running:
            call = node.ended(answer)
            assert call["status"] == "error"
            assert "the server stopped while the call was running" in call["error"]
        ended = [node.ended(answer) for answer in queued]
        assert {call["status"] for call in ended} <= {"success", "error"}
        # Those that ran at the moment of death may have run in part: they are told, not run again.
        assert all("server stopped" in call["error"] for call in ended if call["status"] == "error")
        assert sum(call["status"] == "success" for call in ended) >= 60
        calls = {call["id"]: call["status"] for call in map(node.ended, of_fn)}
        assert set(calls.values()) <= {"success", "error"}
        assert list(calls.values()).count("success") >= 10
        shown = node.http.get(f"/v2/fns/{fn}/calls", params={"per_page": 100}).json()["items"]
        assert {call["id"]: call["status"] for call in shown if call["id"] in calls} == calls
        done = [answer for answer in of_fn if calls[answer.headers["fn_call_id"]] == "success"]
        assert [node.log(answer).count("ran\n") for answer in done] == [1] * len(done)


def test_shutdown_finishes_what_runs_and_keeps_what_waits(tmp_path: Path) -> None:
    image = build_bundle(tmp_path, tmp_path / "source", WITNESS)
    environment = {"FN_MAX_TOTAL_MEMORY": str(1000 << 20)}
    with watching() as witness, concurrent.futures.ThreadPoolExecutor(1) as pool:
        config = {"WITNESS": witness.address}
        with running_node("process", tmp_path, image, **environment) as node:
            path = node.route("slow", "http", type="async", memory=600, timeout=60, config=config)
            witness.go.clear()
            first, *waiting = [node.http.post(path, content=b"0") for _ in range(6)]
            assert until(lambda: node.record(first)["status"] == "running")
            stopped = pool.submit(node.stop)
            assert until(lambda: not listens(node))
            witness.go.set()
            assert stopped.result() == 0
        with contextlib.closing(sqlite3.connect(tmp_path / "fn.db")) as database:
            kept = dict(database.execute("SELECT id, status FROM calls"))
        assert kept.pop(first.headers["fn_call_id"]) == "success"
        assert set(kept.values()) == {"queued"}
        with running_node("process", tmp_path, image, **environment) as node:
            assert {node.ended(answer)["status"] for answer in waiting} == {"success"}
