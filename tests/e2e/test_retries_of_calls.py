"""Retries of async calls through HTTP: attempts, what the function sees of them, and what a death in between costs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until

AT_ONCE = {"backoff_s": 0}


@pytest.mark.parametrize(
    ("orders", "status"),
    [({"exit": 3}, "error"), ({"status": 503, "echo": "busy"}, "error"), ({"sleep_ms": 60_000}, "timeout")],
    ids=["exit", "503", "timeout"],
)
def test_a_call_that_fails_is_tried_as_often_as_its_route_says(
    node: RunningNode, hot: str, orders: dict[str, Any], status: str
) -> None:
    timeout = 1 if status == "timeout" else 60
    path = node.route(f"tries-{hot}", hot, type="async", timeout=timeout, retry={"attempts": 3, **AT_ONCE})
    answer = node.call(path, **orders)
    call = node.ended(answer)
    assert (call["status"], call["attempt"]) == (status, 3)
    assert [(past["attempt"], past["status"]) for past in call["attempts"]] == [(1, status), (2, status)]
    for past in call["attempts"]:
        assert past["started_at"] <= past["completed_at"] <= call["started_at"]
        assert past["node"]
        assert past.get("error") == call["error"]


def test_a_function_sees_its_attempt(node: RunningNode, any_format: str) -> None:
    path = node.route(f"sees-{any_format}", any_format, type="async", retry={"attempts": 3, **AT_ONCE})
    answer = node.call(path, tell=True)
    assert node.ended(answer)["attempt"] == 1
    told = json.loads(node.http.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}/result").content)
    if any_format == "default":
        assert told["env"]["FN_ATTEMPT"] == "1"
    else:
        assert told["headers"]["Fn-Attempt"] == ["1"]


@pytest.mark.parametrize("orders", [{"echo": "fine"}, {"status": 400, "echo": "yours"}], ids=["200", "400"])
def test_a_call_that_is_answered_well_runs_once(node: RunningNode, orders: dict[str, Any]) -> None:
    path = node.route("once", "http", type="async", retry={"attempts": 3, **AT_ONCE})
    call = node.ended(node.call(path, **orders))
    assert (call["status"], call["attempt"]) == ("success", 1)
    assert "attempts" not in call


def test_only_the_failures_that_a_policy_names_are_tried_again(node: RunningNode) -> None:
    path = node.route("named", "http", type="async", retry={"attempts": 3, "on": ["timeout"], **AT_ONCE})
    assert node.ended(node.call(path, exit=3))["attempt"] == 1


def test_calls_of_routes_without_a_policy_show_nothing_of_attempts(node: RunningNode) -> None:
    path = node.route("plain", "http", type="async", retry=None)
    assert "retry" not in node.http.get("/v1/apps/e2e/routes/plain").json()["route"]
    call = node.ended(node.call(path, exit=3))
    assert not {"attempt", "attempts"} & set(call)


def test_a_route_shows_the_whole_policy_and_takes_it_back(node: RunningNode) -> None:
    node.route("shows", "http", type="async", retry={"attempts": 5})
    shown = node.http.get("/v1/apps/e2e/routes/shows").json()["route"]["retry"]
    assert shown == {
        **{"attempts": 5, "backoff_s": 1, "factor": 2, "max_s": 300, "jitter": "full"},
        "on": ["error", "timeout", "status_5xx"],
    }
    node.route("shows", "http", retry=shown)
    bad = node.http.patch("/v1/apps/e2e/routes/shows", json={"route": {"retry": {"attempts": 0}}})
    message = "Invalid delivery: retry: attempts must be an integer from 1 to 20"
    assert (bad.status_code, bad.json()["error"]["message"]) == (400, message)
    assert node.http.get("/v1/apps/e2e/routes/shows").json()["route"]["retry"] == shown


@pytest.mark.parametrize("interrupted", [False, True], ids=["at most once", "at least once"])
def test_a_call_whose_node_died_runs_again_only_if_its_policy_names_that(tmp_path: Path, interrupted: bool) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    environment = {"FN_MQ_VISIBILITY_S": "2"}
    on = ["error", "timeout", "status_5xx", *(["interrupted"] if interrupted else [])]
    with running_node("process", tmp_path, image, **environment) as node:
        policy = {"attempts": 2, "on": on, **AT_ONCE}
        running = node.call(node.route("dies", "http", type="async", timeout=5, retry=policy), sleep_ms=60_000)
        waits = {"attempts": 2, "backoff_s": 3, "jitter": "none"}
        waiting = node.call(node.route("waits", "http", type="async", retry=waits), exit=3)
        assert until(lambda: node.record(running)["status"] == "running")
        assert until(lambda: node.record(waiting).get("attempt") == 2)
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
    with running_node("process", tmp_path, image, **environment) as node:
        call = node.ended(running)
        if interrupted:
            assert (call["status"], call["attempt"]) == ("timeout", 2)
            assert "the server stopped while the call was running" in call["attempts"][0]["error"]
        else:
            assert (call["status"], call["attempt"]) == ("error", 1)
            assert "the server stopped while the call was running" in call["error"]
        call = node.ended(waiting)
        assert (call["status"], call["attempt"], len(call["attempts"])) == ("error", 2, 1)
