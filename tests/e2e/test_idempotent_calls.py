"""Calls with an Idempotency-Key: one execution for each key, and its answer for every repetition."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.raw_http import RawClient
from tests.support.waiting import until

#: Headers of one answer on its connection, and the one that only a repetition has.
NOT_COMPARED = {"date", "connection", "idempotent-replay"}
MAX_KEPT = 4096


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that keeps small answers only."""
    data = tmp_path_factory.mktemp("once")
    image = build_multi(data, data / "source")
    with running_node("process", data, image, FN_MAX_RESULT_BYTES=str(MAX_KEPT)) as running:
        yield running


def call(node: RunningNode, path: str, key: str, sent: dict[str, str] | None = None, **orders: Any) -> httpx.Response:
    return node.http.post(path, json=orders, headers={"Idempotency-Key": key, **(sent or {})})


def executions(node: RunningNode, path: str) -> list[dict[str, Any]]:
    """Return the records of a route's calls."""
    query = {"path": path.removeprefix("/r/e2e")}
    found: list[dict[str, Any]] = node.http.get("/v1/apps/e2e/calls", params=query).json()["calls"]
    return found


def runs(node: RunningNode, path: str) -> bool:
    """Return whether a call of a route runs now."""
    stats = node.http.get("/stats").json()["FunctionStatsMap"].get(path.removeprefix("/r/e2e"), {})
    return bool(stats.get("Running"))


def compared(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in NOT_COMPARED]
    return answer.status_code, sorted(headers), answer.content


def message(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize(
    "orders",
    [
        {"tell": True, "headers": {"X-A": ["1", "2"]}},
        {"echo": "broken", "status": 500},
        {"status": 204, "echo": ""},
        {"exit": 3},
    ],
    ids=["answer", "500", "204", "exit"],
)
def test_a_repetition_gets_the_answer_of_the_first_request(
    once: RunningNode, any_format: str, orders: dict[str, Any]
) -> None:
    name = f"same-{any_format}-{orders.get('status', 'exit' in orders)}"
    path = once.route(name, any_format, headers={"X-Route": ["r"]})
    first, again, more = (call(once, path, "key", **orders) for _ in range(3))
    assert "idempotent-replay" not in first.headers
    if "exit" in orders:
        del first.headers["xxx-fxlb-wait"]  # repeated errors have waited for nothing
    for repeated in (again, more):
        assert repeated.headers["idempotent-replay"] == "true"
        assert compared(repeated) == compared(first)
    assert len(executions(once, path)) == 1
    other = call(once, path, "other", **orders)
    assert "idempotent-replay" not in other.headers
    assert len(executions(once, path)) == 2


def test_repetitions_wait_while_the_first_request_runs(once: RunningNode) -> None:
    path = once.route("concurrent", "http")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        orders: dict[str, Any] = {"tell": True, "sleep_ms": 300}
        answers = list(pool.map(lambda _: call(once, path, "key", **orders), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["fn_call_id"] for answer in answers}) == 1
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replay") for answer in answers].count(None) == 1
    assert len(executions(once, path)) == 1


def test_a_timeout_is_an_answer(once: RunningNode) -> None:
    path = once.route("late", "http", timeout=1)
    for _ in range(2):
        answer = call(once, path, "key", sleep_ms=60_000)
        assert (answer.status_code, message(answer)) == (504, "Timed out")
    assert answer.headers["idempotent-replay"] == "true"
    assert [found["status"] for found in executions(once, path)] == ["timeout"]


def test_a_caller_that_leaves_gets_the_answer_when_it_comes_back(once: RunningNode) -> None:
    path = once.route("leaves", "json")
    body = json.dumps({"tell": True, "sleep_ms": 300})
    with RawClient(once.url) as client:
        client.send(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: key\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        assert until(lambda: runs(once, path))
    answer = once.http.post(path, content=body, headers={"Idempotency-Key": "key"})
    assert (answer.status_code, answer.headers["idempotent-replay"]) == (200, "true")
    assert [found["status"] for found in executions(once, path)] == ["success"]
    assert json.loads(answer.content)["id"] == executions(once, path)[0]["id"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_another_request_with_the_key_is_refused(once: RunningNode, kind: str) -> None:
    path = once.route(f"other-{kind}", "http", type=kind)
    first = call(once, path, "key", echo="one")
    assert first.status_code == (200 if kind == "sync" else 202)
    for answer in (
        call(once, path, "key", echo="two"),
        once.http.put(path, json={"echo": "one"}, headers={"Idempotency-Key": "key"}),
    ):
        assert answer.status_code == 422
        assert message(answer).startswith("This Idempotency-Key was used for another request")
    assert call(once, path, "key", echo="one").content == first.content
    elsewhere = once.route(f"elsewhere-{kind}", "http", type=kind)
    assert call(once, elsewhere, "key", echo="two").status_code == first.status_code


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([""], "1 to 255 printable ASCII characters"),
        (["x" * 256], "1 to 255 printable ASCII characters"),
        ([b"\xe9"], "1 to 255 printable ASCII characters"),
        (["a", "b"], "1 to 255 printable ASCII characters"),
        (["hearth/x"], "keys that begin with 'hearth/' are reserved"),
    ],
    ids=["empty", "long", "not ascii", "two", "reserved"],
)
def test_a_key_of_the_wrong_form_runs_nothing(once: RunningNode, values: list[str | bytes], problem: str) -> None:
    path = once.route("forms", "http")
    headers = [("Idempotency-Key", value) for value in values]
    answer = once.http.post(path, json={"echo": "x"}, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 400
    assert message(answer).startswith("Invalid Idempotency-Key: ")
    assert message(answer).endswith(problem)
    assert executions(once, path) == []


@pytest.mark.parametrize("format_name", ["http", "default"])
def test_a_large_answer_is_sent_once(once: RunningNode, format_name: str) -> None:
    path = once.route(f"large-{format_name}", format_name)
    kept = call(once, path, "kept", size=MAX_KEPT)
    assert call(once, path, "kept", size=MAX_KEPT).content == kept.content
    size = 3_000_000
    assert call(once, path, "key", size=size).content == b"x" * size
    again = call(once, path, "key", size=size)
    assert again.status_code == 409
    assert f"more than {MAX_KEPT} bytes" in message(again)
    assert len(executions(once, path)) == 2


def test_an_answer_expires_when_its_route_says(once: RunningNode) -> None:
    path = once.route("expires", "http", idempotency_ttl_s=1)
    assert once.http.get("/v1/apps/e2e/routes/expires").json()["route"]["idempotency_ttl_s"] == 1
    call(once, path, "key", echo="x")
    assert until(lambda: "idempotent-replay" not in call(once, path, "key", echo="x").headers)
    bad = once.http.patch("/v1/apps/e2e/routes/expires", json={"route": {"idempotency_ttl_s": 0}})
    assert (bad.status_code, message(bad)) == (
        400,
        "Invalid delivery: idempotency_ttl_s must be an integer from 1 to 2592000, or null for the node's default",
    )


def test_a_call_that_never_ran_leaves_its_key_free(once: RunningNode) -> None:
    path = once.route("missing", "http", image="missing:1")
    assert call(once, path, "key", echo="x").status_code == 404
    once.route("missing", "http", image=once.image)
    assert until(lambda: call(once, path, "key", echo="x").status_code == 200)


# -- async calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefers", [False, True], ids=["async", "preferred"])
def test_a_repetition_of_an_async_call_gets_its_id(once: RunningNode, prefers: bool) -> None:
    path = once.route(f"later-{prefers}", "http", type="sync" if prefers else "async")
    headers = {"Prefer": "respond-async"} if prefers else {}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(once, path, "key", headers, echo="done"), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replay") for answer in answers].count(None) == 1
    assert once.ended(answers[0])["status"] == "success"
    assert len(executions(once, path)) == 1
    if prefers:
        (where,) = {answer.headers["location"] for answer in answers}
        assert httpx.get(f"{once.url}{where}").content == b"done"
        assert {answer.headers["preference-applied"] for answer in answers} == {"respond-async"}


# -- fns --------------------------------------------------------------------------------------------------------------


def test_a_fn_and_its_triggers_share_their_keys(once: RunningNode) -> None:
    app = once.http.post("/v2/apps", json={"name": "fns"}).json()
    fn = {"name": "f", "app_id": app["id"], "image": once.image, "annotations": {"hearth/idempotency_ttl_s": 60}}
    fn_id = once.http.post("/v2/fns", json=fn).json()["id"]
    trigger = {"name": "t", "app_id": app["id"], "fn_id": fn_id, "type": "http", "source": "/s"}
    assert once.http.post("/v2/triggers", json=trigger).status_code == 200
    first = call(once, "/t/fns/s", "key", echo="x")
    again = call(once, f"/invoke/{fn_id}", "key", echo="x")
    assert (again.status_code, again.content, again.headers["idempotent-replay"]) == (200, b"x", "true")
    assert again.headers["fn-call-id"] == first.headers["fn-call-id"]
    detached = {"Fn-Invoke-Type": "detached"}
    other = call(once, f"/invoke/{fn_id}", "key", detached, echo="x")
    assert (other.status_code, other.json()["message"][:20]) == (422, "This Idempotency-Key")
    later = [call(once, f"/invoke/{fn_id}", "later", detached, echo="x") for _ in range(2)]
    assert [answer.status_code for answer in later] == [202, 202]
    assert len({answer.headers["fn-call-id"] for answer in later}) == 1
    assert len({answer.headers["location"] for answer in later}) == 1


# -- a node that dies -------------------------------------------------------------------------------------------------


def test_a_request_whose_node_died_is_not_run_again(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    orders: dict[str, Any] = {"sleep_ms": 60_000, "echo": "never"}
    with running_node("process", tmp_path, image) as node:
        path = node.route("dies", "http", timeout=60)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(call, node, path, "key", **orders)
            assert until(lambda: runs(node, path))
            node.stop(signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                first.result()
    with sqlite3.connect(tmp_path / "fn.db") as database:  # its lease has ended
        database.execute("UPDATE idempotency_keys SET held_until = '2000-01-01T00:00:00.000Z'")
    with running_node("process", tmp_path, image) as node:
        for _ in range(2):
            answer = call(node, path, "key", **orders)
            assert answer.status_code == 500
            assert message(answer).startswith("The server stopped while the request with this Idempotency-Key was run")
        assert executions(node, path) == []
