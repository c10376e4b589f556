"""Calls that failed for good: kept with their payloads, run again as new calls, or removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support import old_queues
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until

from hearth.models.call import Call
from hearth.models.message import encode_call

ONCE = {"attempts": 2, "backoff_s": 0}


def letters(node: RunningNode, app: str = "e2e", **query: str) -> list[dict[str, Any]]:
    answer = node.http.get(f"/v1/apps/{app}/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["calls"]
    return found


def call_id(answer: httpx.Response) -> str:
    found: str = answer.headers["fn_call_id"]
    return found


def failed(node: RunningNode, path: str, **orders: Any) -> str:
    """Return the id of a call that failed."""
    answer = node.http.post(path, json=orders, headers={"X-Mine": "kept"})
    assert node.ended(answer)["status"] in ("error", "timeout")
    return call_id(answer)


@pytest.mark.parametrize(
    ("rules", "joins"),
    [
        ({"retry": ONCE}, True),
        ({"dead_letters": True}, True),
        ({"retry": ONCE, "dead_letters": False}, False),
        ({}, False),
    ],
)
def test_a_call_that_fails_joins_the_dead_letters_if_its_route_says_so(
    node: RunningNode, rules: dict[str, Any], joins: bool
) -> None:
    name = "-".join(["dies", *rules])
    path = node.route(name, "http", type="async", **rules)
    failing = failed(node, path, exit=3)
    good = node.ended(node.http.post(path, json={"echo": "x"}))
    record = node.http.get(f"/v1/apps/e2e/calls/{failing}").json()["call"]
    assert (record.get("dead", False), good.get("dead", False)) == (joins, False)
    assert [one["id"] for one in letters(node, route=f"/{name}") if one["id"] in (failing, good["id"])] == (
        [failing] if joins else []
    )


def test_a_dead_letter_is_shown_with_its_request_and_removed(node: RunningNode) -> None:
    failing = failed(node, node.route("shown", "http", type="async", retry=ONCE), exit=3)
    where = f"/v1/apps/e2e/dead-letters/{failing}"
    letter = node.http.get(where).json()["call"]
    assert (letter["headers"]["X-Mine"], letter["attempt"], len(letter["attempts"])) == (["kept"], 2, 1)
    payload = node.http.get(f"{where}/payload")
    assert (payload.json(), letter["payload_bytes"]) == ({"exit": 3}, len(payload.content))
    assert node.http.delete(where).status_code == 200
    for method, path in (("GET", where), ("DELETE", where), ("GET", f"{where}/payload"), ("POST", f"{where}/redrive")):
        answer = node.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Dead letter not found")
    assert node.http.get("/v1/apps/unknown/dead-letters").status_code == 404


def test_a_redrive_runs_the_function_as_it_is_now(node: RunningNode) -> None:
    path = node.route("mended", "http", type="async", retry=ONCE, config={"MENDED": ""})
    failing = failed(node, path, run="import os\nif not os.environ['MENDED']: os._exit(3)", echo="done")
    node.route("mended", "http", type="async", retry=ONCE, config={"MENDED": "yes"})
    answer = node.http.post(f"/v1/apps/e2e/dead-letters/{failing}/redrive")
    assert answer.status_code == 202
    new = answer.json()["call_id"]
    record = f"/v1/apps/e2e/calls/{new}"
    assert until(lambda: node.http.get(record).json()["call"]["status"] == "success")
    assert node.http.get(record).json()["call"]["origin"] == f"redrive {failing}"
    assert node.http.get(f"{record}/result").text == "done"
    assert failing not in [one["id"] for one in letters(node)], "it has become another call"
    assert node.http.get(f"/v1/apps/e2e/calls/{failing}").json()["call"]["status"] == "error"


def test_many_are_redriven_and_those_without_a_function_stay(node: RunningNode) -> None:
    path = node.route("many", "http", type="async", retry=ONCE)
    gone = node.route("gone", "http", type="async", retry=ONCE)
    failing = {failed(node, path, exit=3) for _ in range(3)}
    orphan = failed(node, gone, exit=3)
    assert node.http.delete("/v1/apps/e2e/routes/gone").status_code == 200
    alone = node.http.post(f"/v1/apps/e2e/dead-letters/{orphan}/redrive")
    assert (alone.status_code, alone.json()["error"]["message"]) == (404, "Route not found")
    answer = node.http.post("/v1/apps/e2e/dead-letters/redrive", params={"route": "/gone"})
    assert answer.json() == {"redriven": 0, "skipped": 1, "next_cursor": ""}
    answer = node.http.post("/v1/apps/e2e/dead-letters/redrive", params={"route": "/many"})
    assert (answer.status_code, answer.json()) == (202, {"redriven": 3, "skipped": 0, "next_cursor": ""})

    def again() -> list[dict[str, Any]]:
        return [one for one in letters(node, route="/many") if one.get("origin", "")[8:] in failing]

    assert until(lambda: len(again()) == 3), "they fail as before, and join the dead letters as calls of their own"
    removed = node.http.request("DELETE", "/v1/apps/e2e/dead-letters", params={"route": "/many"})
    assert removed.json()["removed"] == 3
    assert letters(node, route="/many") == []
    assert [one["id"] for one in letters(node, route="/gone")] == [orphan]


def test_dead_letters_are_counted_by_app(node: RunningNode) -> None:
    failed(node, node.route("counted", "http", type="async", retry=ONCE), exit=3)
    told = node.http.get("/metrics").text
    assert "# TYPE hearth_dead_letters gauge" in told
    assert "# TYPE hearth_dead_letters_oldest_age_seconds gauge" in told


def test_a_policy_that_is_none_is_refused(node: RunningNode) -> None:
    route = {"image": node.image, "type": "async", "dead_letters": "yes"}
    answer = node.http.put("/v1/apps/e2e/routes/refused", content=json.dumps({"route": route}))
    assert answer.status_code == 400
    assert "dead_letters must be true, false, or null" in answer.json()["error"]["message"]


def test_the_queue_of_the_version_before_ends_its_calls_and_keeps_what_cannot_be_read(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    good = Call(id="01KBC4Z1S9NG8G00GZJ0000001", app_name="e2e", path="/old", image=image, format="http", timeout=9)
    good.memory, good.idle_timeout, good.payload = 128, 9, b'{"echo": "x"}'
    good.method, good.url = "POST", "http://localhost/r/e2e/old"
    cut = b'{"id":"01KBC4Z1S9NG8G00GZJ0000002","app_name":"e2e","path":"/old","payl'
    old_queues.write_file(tmp_path / "fn.mq", [cut, b"\xff\x00", encode_call(good)])
    with running_node("process", tmp_path, image) as old:
        old.route("another", "http")
        where = f"/v1/apps/e2e/calls/{good.id}"
        assert until(lambda: old.http.get(where).json().get("call", {}).get("status") == "success")
        assert until(lambda: len(letters(old)) == len(letters(old, "unknown.app")) == 1)
        (known,), (unknown,) = letters(old), letters(old, "unknown.app")
        assert (known["id"], known["status"], known["unreadable"]) == ("01KBC4Z1S9NG8G00GZJ0000002", "error", True)
        bytes_of = [
            old.http.get(f"/v1/apps/{one['app_name']}/dead-letters/{one['id']}/payload").content
            for one in (known, unknown)
        ]
        assert bytes_of == [cut, b"\xff\x00"]
        assert old.http.delete("/v1/apps/unknown.app/dead-letters").json()["removed"] == 1
