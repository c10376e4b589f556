"""Async calls that start later, or not at all: delays and expiry through HTTP."""

from __future__ import annotations

import datetime as dt
import itertools
import signal
from pathlib import Path

import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until

from hearth.models.times import format_time, parse_time


def started_after(node: RunningNode, path: str, **headers: str) -> dt.timedelta:
    """Return how long after its acceptance a call started."""
    call = node.ended(node.http.post(path, json={"echo": "x"}, headers=headers))
    assert call["status"] == "success"
    return parse_time(call["started_at"]) - parse_time(call["created_at"])


def test_a_call_starts_no_earlier_than_its_request_says(node: RunningNode) -> None:
    path = node.route("delayed", "http", type="async")
    second = dt.timedelta(seconds=1)
    assert started_after(node, path, **{"Fn-Delay": "0.5"}) >= second, "whole seconds, rounded up"
    in_two = format_time(dt.datetime.now(dt.UTC) + 2 * second)
    assert started_after(node, path, **{"Fn-Not-Before": in_two}) >= second
    started_after(node, path, **{"Fn-Not-Before": "2020-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("header", "value", "form"),
    [
        ("Fn-Delay", "soon", "a number of seconds from 0 to 2592000"),
        ("Fn-Delay", "-1", "a number of seconds from 0 to 2592000"),
        ("Fn-Delay", "nan", "a number of seconds from 0 to 2592000"),
        ("Fn-Delay", "2592001", "a number of seconds from 0 to 2592000"),
        ("Fn-Not-Before", "tomorrow", "an RFC 3339 time, at most 2592000 seconds from now"),
        ("Fn-Not-Before", "", "an RFC 3339 time, at most 2592000 seconds from now"),
        ("Fn-Not-Before", "2999-01-01T00:00:00Z", "an RFC 3339 time, at most 2592000 seconds from now"),
    ],
)
def test_a_time_that_is_none_is_refused(node: RunningNode, header: str, value: str, form: str) -> None:
    path = node.route("delayed", "http", type="async")
    answer = node.http.post(path, headers={header: value})
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": f"Invalid {header}: it must be {form}"}})


def test_sync_calls_know_no_delay(node: RunningNode) -> None:
    answer = node.http.post(node.route("at-once", "http"), json={"echo": "now"}, headers={"Fn-Delay": "soon"})
    assert (answer.status_code, answer.text) == (200, "now")


def test_a_delay_survives_a_death(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node:
        path = node.route("survives", "http", type="async")
        answer = node.http.post(path, json={"echo": "x"}, headers={"Fn-Delay": "5"})
        assert node.record(answer)["status"] == "queued"
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
    with running_node("process", tmp_path, image) as node:
        call = node.ended(answer)
        assert call["status"] == "success"
        assert parse_time(call["started_at"]) - parse_time(call["created_at"]) >= dt.timedelta(seconds=5)


def test_a_call_that_does_not_start_in_time_expires(node: RunningNode) -> None:
    path = node.route("expires", "http", type="async", expires_s=1, retry={"attempts": 3, "backoff_s": 0})
    answer = node.http.post(path, json={"echo": "x"}, headers={"Fn-Delay": "2"})
    call = node.ended(answer)
    assert (call["status"], call["error"]) == ("expired", "The call expired before it started")
    assert call["started_at"].startswith("0001")
    told = node.http.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}/result")
    assert (told.status_code, told.headers["fn-call-status"]) == (504, "expired")
    listed = node.http.get("/v1/apps/e2e/calls?status=expired").json()["calls"]
    assert answer.headers["fn_call_id"] in [one["id"] for one in listed]


def test_no_more_calls_of_a_route_are_queued_than_it_says(node: RunningNode) -> None:
    path, later = node.route("few", "http", type="async", max_queued=1), {"Fn-Delay": "3600"}
    first = node.http.post(path, json={}, headers=later)
    assert first.status_code == 202
    refused = node.http.post(path, json={}, headers=later)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    told = "App e2e: /few has 1 queued calls, the most that it may have (max_queued)"
    assert refused.json() == {"error": {"message": told}}
    assert node.http.post(f"/v1/apps/e2e/calls/{first.headers['fn_call_id']}/cancel").status_code == 200
    assert until(lambda: node.http.post(path, json={"echo": "x"}).status_code == 202)


def test_no_more_calls_of_a_route_run_at_once_than_it_says(node: RunningNode) -> None:
    path = node.route("one-by-one", "http", type="async", max_concurrent_async=1)
    ended = [node.ended(answer) for answer in [node.call(path, sleep_ms=50) for _ in range(3)]]
    spans = sorted((call["started_at"], call["completed_at"]) for call in ended)
    assert [call["status"] for call in ended] == ["success"] * 3
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), spans
