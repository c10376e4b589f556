"""Results of async calls through HTTP: what a sync caller would have been answered, for those who may see it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until

#: Headers of one answer, or of its connection; and those that only a result has.
NOT_COMPARED = {"date", "fn_call_id", "xxx-fxlb-wait", "fn-call-status", "content-security-policy", "connection"}


def result(node: RunningNode, answer: httpx.Response, **query: Any) -> httpx.Response:
    call_id = answer.headers["fn_call_id"]
    return node.http.get(f"/v1/apps/e2e/calls/{call_id}/result", params={"wait": 30, **query})


def compared(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in NOT_COMPARED]
    return answer.status_code, sorted(headers), answer.content


@pytest.mark.parametrize(
    "orders",
    [
        {"echo": "done", "say": "a line"},
        {"echo": "teapot", "status": 418},
        {"echo": "broken", "status": 500},
        {"echo": "nothing", "status": 204},
        {"exit": 3},
    ],
    ids=lambda orders: str(orders.get("status", orders.get("echo", "exit"))),
)
def test_a_result_is_what_a_sync_caller_is_answered(node: RunningNode, any_format: str, orders: dict[str, Any]) -> None:
    fields = {"headers": {"X-Function": ["Test", "2"], "Content-Type": ["text/x"]}}
    sync = node.call(node.route(f"now-{any_format}", any_format, **fields), **orders)
    later = node.call(node.route(f"result-{any_format}", any_format, type="async", **fields), **orders)
    told = result(node, later)
    assert compared(told) == compared(sync)
    assert told.headers["fn_call_id"] == later.headers["fn_call_id"]
    assert told.headers["fn-call-status"] == node.record(later)["status"]
    assert "xxx-fxlb-wait" in told.headers
    assert told.headers["content-security-policy"] == "sandbox"


def test_a_timeout_is_the_result_of_a_call_that_timed_out(node: RunningNode, hot: str) -> None:
    told = result(node, node.call(node.route(f"late-{hot}", hot, type="async", timeout=1), sleep_ms=60_000))
    assert (told.status_code, told.headers["fn-call-status"]) == (504, "timeout")
    assert told.json() == {"error": {"message": "Timed out"}}


def test_a_call_that_has_not_ended_is_told_so(node: RunningNode) -> None:
    path = node.route("running", "http", type="async", timeout=60)
    running = node.call(path, sleep_ms=60_000)
    assert until(lambda: node.record(running)["status"] == "running")
    for wait in ("", "0.05"):
        told = result(node, running, wait=wait)
        assert (told.status_code, told.headers["retry-after"], told.headers["fn-call-status"]) == (202, "1", "running")
        assert told.json() == {"call_id": running.headers["fn_call_id"], "status": "running"}


@pytest.mark.parametrize("wait", ["x", "-1", "61", "NaN", '"1"'])
def test_a_wait_that_is_none_is_refused(node: RunningNode, wait: str) -> None:
    answer = node.call(node.route("waits", "http", type="async"), echo="x")
    told = result(node, answer, wait=wait)
    message = "Invalid wait: it must be a number of seconds from 0 to 60"
    assert (told.status_code, told.json()) == (400, {"error": {"message": message}})


def test_unknown_calls_and_sync_calls_have_no_result(node: RunningNode) -> None:
    unknown = node.http.get("/v1/apps/e2e/calls/none/result")
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "Call not found")
    sync = result(node, node.call(node.route("sync", "http"), echo="x"))
    assert (sync.status_code, sync.json()["error"]["message"]) == (
        410,
        "The result of this call is not kept any more",
    )


def test_a_result_expires_when_its_route_says(node: RunningNode) -> None:
    path = node.route("expires", "http", type="async", result_ttl_s=1)
    assert node.http.get("/v1/apps/e2e/routes/expires").json()["route"]["result_ttl_s"] == 1
    answer = node.call(path, echo="x")
    assert result(node, answer).status_code == 200
    assert until(lambda: result(node, answer).status_code == 410)
    assert node.record(answer)["status"] == "success"


# -- who prefers to be answered later --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_may_prefer_to_be_answered_later(node: RunningNode, kind: str) -> None:
    path = node.route(f"prefer-{kind}", "json", type=kind)
    answer = node.http.post(path, json={"echo": "later"}, headers={"Prefer": "wait=5, Respond-Async; x=y"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    call_id = answer.headers["fn_call_id"]
    assert answer.json() == {"call_id": call_id}
    where, _, token = answer.headers["location"].partition("?token=")
    assert where == f"/v1/apps/e2e/calls/{call_id}/result"
    told = node.http.get(answer.headers["location"], params={"token": token, "wait": 30})
    assert (told.status_code, told.content) == (200, b"later")
    assert token not in json.dumps(node.record(answer))


@pytest.mark.parametrize("preference", ["respond-sync", "x; respond-async", "respond-async-never", ""])
def test_other_preferences_change_nothing(node: RunningNode, preference: str) -> None:
    answer = node.http.post(node.route("prefer-none", "http"), json={"echo": "now"}, headers={"Prefer": preference})
    assert (answer.status_code, answer.content) == (200, b"now")
    assert not {"location", "preference-applied"} & set(answer.headers)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that asks for tokens, with clients that show the administrator's."""
    folder = tmp_path_factory.mktemp("guarded")
    environment = {"FN_AUTH": "required", "FN_ADMIN_TOKEN": "t" * 32, "FN_MAX_RESULT_BYTES": "1000"}
    with running_node("process", folder, build_multi(folder, folder / "source"), **environment) as node:
        node.http.headers["Authorization"] = f"Bearer {'t' * 32}"
        yield node


def test_a_token_opens_one_result_and_nothing_else(guarded: RunningNode) -> None:
    path = guarded.route("open", "http")
    with httpx.Client(base_url=guarded.url, timeout=60) as stranger:
        mine, other = [
            stranger.post(path, json={"echo": name}, headers={"Prefer": "respond-async"}) for name in ("mine", "other")
        ]
        location = mine.headers["location"]
        base, _, token = location.partition("?token=")
        assert stranger.get(f"{location}&wait=30").content == b"mine"
        of_other = other.headers["location"].partition("?")[0]
        for where in (f"{of_other}?token={token}", f"{base}?token={token}x", f"{base}?token=", f"{base}?token=%00"):
            assert stranger.get(where).status_code in (400, 404), where
        assert stranger.get(base).status_code == 401
        record = base.removesuffix("/result")
        for where in (record, f"{record}/log", "/v1/apps"):
            assert stranger.get(f"{where}?token={token}").status_code == 401, where
        assert guarded.http.get(base).content == b"mine"


def test_an_answer_beyond_the_limit_is_an_error_that_says_so(guarded: RunningNode) -> None:
    for size, status in ((1000, 200), (1001, 502)):
        told = result(guarded, guarded.call(guarded.route("size", "http", type="async"), size=size))
        assert (told.status_code, told.headers["fn-call-status"]) == (status, "success")
    message = "The result is larger than 1000 bytes, the most that is kept (FN_MAX_RESULT_BYTES)"
    assert told.json() == {"error": {"message": message}}


def test_a_detached_call_of_a_fn_has_a_result(guarded: RunningNode) -> None:
    app = guarded.http.post("/v2/apps", json={"name": "fns"}).json()
    fn = {"name": "f", "app_id": app["id"], "image": guarded.image, "annotations": {"hearth/result_ttl_s": 60}}
    fn_id = guarded.http.post("/v2/fns", json=fn).json()["id"]
    order, headers = {"echo": "detached"}, {"Fn-Invoke-Type": "detached"}
    with httpx.Client(base_url=guarded.url, timeout=60) as stranger:
        answer = stranger.post(f"/invoke/{fn_id}", json=order, headers=headers)
        assert (answer.status_code, answer.content) == (202, b"")
        call_id = answer.headers["fn-call-id"]
        assert answer.headers["location"].startswith(f"/v2/fns/{fn_id}/calls/{call_id}/result?token=")
        told = stranger.get(f"{answer.headers['location']}&wait=30")
        assert (told.status_code, told.content, told.headers["fn-call-status"]) == (200, b"detached", "success")
        assert told.headers["fn-call-id"] == call_id
        assert stranger.get(f"/v2/fns/{fn_id}/calls/{call_id}/result").status_code == 401
        assert stranger.get(f"/v2/fns/{fn_id}/calls/none/result?token=x").status_code == 404
    bad = guarded.http.put(f"/v2/fns/{fn_id}", json={"annotations": {"hearth/result_ttl_s": 0}})
    text = "Invalid delivery: result_ttl_s must be an integer from 1 to 2592000, or null for the node's default"
    assert (bad.status_code, bad.json()["message"]) == (400, text)


def was_read(client: socket.socket) -> bool:
    """Return whether the server on this machine has read all that the client has sent."""
    ends = [f":{address[1]:04X}" for address in (client.getpeername(), client.getsockname())]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any([one[-5:] for one in line[1:3]] == ends and line[4].endswith(":00000000") for line in lines)


def test_a_wait_ends_when_the_node_stops(tmp_path: Path) -> None:
    with running_node("process", tmp_path, build_multi(tmp_path, tmp_path / "source")) as node:
        running = node.call(node.route("long", "http", type="async", timeout=600), sleep_ms=600_000)
        assert until(lambda: node.record(running)["status"] == "running")
        url = httpx.URL(node.url).join(f"/v1/apps/e2e/calls/{running.headers['fn_call_id']}/result?wait=60")
        with socket.create_connection((url.host, url.port or 80), timeout=60) as waiting:
            waiting.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (url.raw_path, url.netloc))
            assert until(lambda: was_read(waiting))
            node.process.send_signal(signal.SIGTERM)
            told = http.client.HTTPResponse(waiting)
            told.begin()
            assert (told.status, told.headers["fn-call-status"]) == (202, "running")
            node.process.send_signal(signal.SIGTERM)  # abort the call
            node.process.wait(60)
