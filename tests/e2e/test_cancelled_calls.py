"""Cancelled calls through HTTP: those that wait, run, wait for their next attempt, or have ended."""

from __future__ import annotations

from typing import Any

import httpx
from tests.support.node import RunningNode
from tests.support.waiting import until


def cancel(node: RunningNode, answer: httpx.Response) -> httpx.Response:
    return node.http.post(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}/cancel")


def result(node: RunningNode, answer: httpx.Response) -> tuple[int, Any]:
    told = node.http.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}/result")
    return told.status_code, told.json()


def test_a_call_that_waits_never_starts(node: RunningNode) -> None:
    path = node.route("waits", "http", type="async")
    answer = node.http.post(path, json={"echo": "x"}, headers={"Fn-Delay": "1"})
    ended = cancel(node, answer)
    assert (ended.status_code, ended.json()["message"]) == (200, "Successfully cancelled call")
    assert ended.json()["call"] == node.record(answer)
    assert (node.record(answer)["status"], node.record(answer)["error"]) == ("cancelled", "The call was cancelled")
    assert result(node, answer) == (409, {"error": {"message": "The call was cancelled"}})
    again = cancel(node, answer)
    assert (again.status_code, again.json()) == (409, {"error": {"message": "The call has ended: cancelled"}})
    after = node.http.post(path, json={"echo": "x"}, headers={"Fn-Delay": "1"})  # it is due later
    assert node.ended(after)["status"] == "success"
    assert node.record(answer)["started_at"].startswith("0001")
    assert answer.headers["fn_call_id"] in [
        one["id"] for one in node.http.get("/v1/apps/e2e/calls?status=cancelled").json()["calls"]
    ]


def test_a_call_that_runs_is_ended_and_not_tried_again(node: RunningNode, hot: str) -> None:
    policy = {"attempts": 3, "backoff_s": 0}
    path = node.route(f"runs-{hot}", hot, type="async", timeout=60, retry=policy)
    answer = node.call(path, sleep_ms=60_000)
    assert until(lambda: node.record(answer)["status"] == "running")
    assert cancel(node, answer).json()["call"]["status"] == "cancelled"
    assert until(lambda: node.http.get("/stats").json()["Running"] == 0), "its function ended long before its time"
    record = node.record(answer)
    assert (record["status"], record["attempt"]) == ("cancelled", 1)


def test_a_call_that_waits_for_its_next_attempt_has_none(node: RunningNode) -> None:
    policy = {"attempts": 2, "backoff_s": 3600, "jitter": "none"}
    answer = node.call(node.route("again", "http", type="async", retry=policy), exit=3)
    assert until(lambda: node.record(answer).get("attempt") == 2)
    assert cancel(node, answer).status_code == 200
    record = node.record(answer)
    assert (record["status"], len(record["attempts"])) == ("cancelled", 1)


def test_what_has_ended_or_is_unknown_cannot_be_cancelled(node: RunningNode) -> None:
    answer = node.http.post(node.route("ended", "http", type="async"), json={"echo": "x"})
    before = node.ended(answer)
    refused = cancel(node, answer)
    assert (refused.status_code, refused.json()) == (409, {"error": {"message": "The call has ended: success"}})
    assert node.record(answer) == before
    unknown = node.http.post("/v1/apps/e2e/calls/unknown/cancel")
    assert (unknown.status_code, unknown.json()) == (404, {"error": {"message": "Call not found"}})
