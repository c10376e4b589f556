"""The conformance rows of invocations (protocols specification 10), through HTTP, on every driver."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.node import RunningNode


def test_an_unknown_app_is_not_found(node: RunningNode) -> None:
    answer = node.http.get("/r/nosuchapp/x")
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "App not found"}})


def test_an_unknown_route_is_not_found(node: RunningNode) -> None:
    node.route("known", "http")
    answer = node.http.post("/r/e2e/unknown")
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "Route not found"}})


def test_a_path_without_the_prefix_is_not_found(node: RunningNode) -> None:
    answer = node.http.get("/route")
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "Path not found: /route"}})


def test_a_missing_app_name_is_a_bad_request(node: RunningNode) -> None:
    assert node.http.get("/r//x").json() == {"error": {"message": "Missing app name"}}


def test_a_call_answers_with_the_routes_headers(node: RunningNode, any_format: str) -> None:
    path = node.route(f"headers-{any_format}", any_format, headers={"X-Function": ["Test"]})
    answer = node.call(path, echo="hello")
    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["x-function"] == "Test"
    assert len(answer.headers["fn_call_id"]) == 26
    assert answer.headers["xxx-fxlb-wait"]
    assert answer.headers["content-type"] == "application/json"
    assert node.record(answer)["status"] == "success"


def test_a_failing_function_is_a_502_with_the_routes_headers(node: RunningNode, any_format: str) -> None:
    path = node.route(f"fails-{any_format}", any_format, headers={"X-Function": ["Test"]})
    answer = node.call(path, exit=2)
    assert (answer.status_code, answer.json()) == (502, {"error": {"message": "container exit code 2"}})
    assert answer.headers["x-function"] == "Test"
    record = node.record(answer)
    assert (record["status"], record["error"]) == ("error", "container exit code 2")


def test_a_hot_function_that_exits_0_during_a_call_is_a_502(node: RunningNode, hot: str) -> None:
    answer = node.call(node.route(f"zero-{hot}", hot), exit=0)
    assert (answer.status_code, answer.json()) == (502, {"error": {"message": "container exit code 0"}})


def test_a_missing_image_is_told(node: RunningNode, any_format: str) -> None:
    image = "nosuchbundle:1" if node.driver == "process" else "localhost:1/no/such:1"
    answer = node.http.post(node.route(f"missing-{any_format}", any_format, image=image))
    # Without a registry Docker cannot know whether the image exists: it was unreachable.
    assert answer.status_code == (404 if node.driver == "process" else 502)
    assert answer.json()["error"]["message"].startswith(f"Failed to pull image '{image}': ")
    assert node.record(answer)["status"] == "error"


def test_a_cold_call_beyond_its_deadline_times_out(node: RunningNode) -> None:
    path = node.route("slow-default", "default", timeout=2)
    assert node.call(path, sleep_ms=0, echo="a").text == "a"
    answer = node.call(path, sleep_ms=5000)
    assert (answer.status_code, answer.json()) == (504, {"error": {"message": "Timed out"}})
    record = node.record(answer)
    assert (record["status"], "error" in record) == ("timeout", False)


def test_the_call_after_a_timeout_gets_its_own_answer(node: RunningNode, hot: str) -> None:
    path = node.route(f"slow-{hot}", hot, timeout=2)
    assert node.call(path, sleep_ms=5000, echo="late").status_code == 504
    answer = node.call(path, echo="mine")
    assert (answer.status_code, answer.text) == (200, "mine")


def test_concurrent_calls_all_answer(node: RunningNode, hot: str) -> None:
    path = node.route(f"four-{hot}", hot)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: node.call(path, sleep_ms=100, echo=str(n)), range(4)))
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, str(n)) for n in range(4)]


def test_sequential_calls_use_one_container(node: RunningNode, hot: str) -> None:
    path = node.route(f"one-{hot}", hot)
    marks = {(answer := node.call(path, tell=True).json())["born"] for _ in range(5)}
    assert len(marks) == 1, answer


def test_config_is_the_environment_and_headers_cannot_change_it(node: RunningNode, any_format: str) -> None:
    node.http.post("/v1/apps", json={"app": {"name": "e2e"}})
    node.http.patch("/v1/apps/e2e", json={"app": {"config": {"APP_VAR": "a=b"}}})
    path = node.route(f"config-{any_format}", any_format, config={"ROUTE_VAR": "r\nr"}, memory=256)
    body = json.dumps({"tell": True})
    headers = [("FN_PATH", "thewrongroute"), ("X-Two", "1"), ("X-Two", "2")]
    told = node.http.post(path, content=body, headers=headers).json()
    environment = told["env"]
    assert environment["FN_FORMAT"] == any_format
    assert environment["FN_APP_NAME"] == "e2e"
    assert environment["FN_PATH"] == f"/config-{any_format}"
    assert environment["FN_MEMORY"] == "256"
    assert environment["FN_TYPE"] == "sync"
    assert "FN_CPUS" not in environment
    assert (environment["APP_VAR"], environment["ROUTE_VAR"]) == ("a=b", "r\nr")
    assert told["body"] == body
    if any_format == "default":
        assert environment["FN_HEADER_X-Two"] == "1, 2"
        assert environment["FN_HEADER_Fn_path"] == "thewrongroute"
        assert environment["FN_METHOD"] == "POST"
        assert environment["FN_REQUEST_URL"].endswith(path)
        assert environment["FN_HEADER_Content-Length"] == str(len(body))
    else:
        assert "FN_METHOD" not in environment
        assert told["headers"]["X-Two"] == ["1", "2"]
        assert told["headers"]["Content-Length"] == [str(len(body))]


def test_the_server_s_environment_is_not_the_functions(node: RunningNode) -> None:
    environment = node.call(node.route("env", "http"), tell=True).json()["env"]
    assert not any(name in environment for name in ("FN_DATA_DIR", "FN_DRIVER", "FN_PORT", "FN_DB_URL"))


def test_json_input_carries_the_call(node: RunningNode) -> None:
    path = node.route("fields", "json")
    answer = node.http.post(f"{path}?a=1&b=2", content=b'{"tell":1}', headers={"content-type": "text/x"})
    call = answer.json()["call"]
    assert call["call_id"] == answer.headers["fn_call_id"]
    assert call["content_type"] == "text/x"
    assert call["type"] == "sync"
    assert call["deadline"].endswith("Z")
    assert call["protocol"]["type"] == "http"
    assert call["protocol"]["method"] == "POST"
    assert call["protocol"]["request_url"] == f"{node.url}{path}?a=1&b=2"


def test_json_input_without_data_has_an_empty_body(node: RunningNode) -> None:
    assert node.http.get(node.route("nothing", "json")).text == ""


def test_a_body_of_unknown_length_is_echoed(node: RunningNode, any_format: str) -> None:
    path = node.route(f"chunked-{any_format}", any_format)
    answer = node.http.post(path, content=iter([b"one ", b"two ", b"three"]))
    assert (answer.status_code, answer.text) == (200, "one two three")


def test_a_large_body_is_echoed(node: RunningNode, any_format: str) -> None:
    path = node.route(f"large-{any_format}", any_format, memory=512)
    body = b"0123456789abcdef" * (64 * 1024 * 5)  # 5 MiB
    answer = node.http.post(path, content=body)
    assert answer.status_code == 200
    assert answer.content == body
    assert node.call(path, echo="next").text == "next"


def test_a_functions_status_and_headers_reach_the_client(node: RunningNode, hot: str) -> None:
    path = node.route(f"status-{hot}", hot)
    headers = {"X-A": "b", "Content-Type": "text/plain", "Fn_call_id": "forged", "Connection": "close"}
    answer = node.call(path, status=418, headers=headers, echo="tea")
    assert (answer.status_code, answer.text) == (418, "tea")
    assert answer.headers.get_list("content-type") == ["text/plain"]
    assert answer.headers["x-a"] == "b"
    assert answer.headers["fn_call_id"] != "forged"
    assert answer.headers.get("connection") != "close"


def test_head_answers_with_headers_only(node: RunningNode, hot: str) -> None:
    answer = node.http.head(node.route(f"head-{hot}", hot))
    assert (answer.status_code, answer.content) == (200, b"")


def test_garbage_is_a_502_and_the_next_call_works(node: RunningNode, hot: str) -> None:
    path = node.route(f"garbage-{hot}", hot)
    answer = node.call(path, raw="this is no answer\n\n\n\n")
    assert answer.status_code == 502
    assert answer.json()["error"]["message"].startswith(f"invalid {hot} response from function err: ")
    assert node.record(answer)["status"] == "error"
    assert node.call(path, echo="next").text == "next"


@pytest.mark.parametrize("surplus", ['{"body":"stolen"}\n', "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"])
def test_a_second_answer_reaches_nobody(node: RunningNode, hot: str, surplus: str) -> None:
    path = node.route(f"surplus-{hot}", hot)
    first = node.call(path, tell=True, surplus=surplus)
    assert first.status_code == 200
    second = node.call(path, tell=True)
    assert second.json()["born"] != first.json()["born"]
    assert second.json()["id"] == second.headers["fn_call_id"]


def test_a_response_without_length_is_invalid(node: RunningNode) -> None:
    path = node.route("nolength", "http", timeout=10)
    answer = node.call(path, no_length=True, echo="x")
    assert answer.status_code == 502
    assert answer.json()["error"]["message"] == "invalid http response from function err: missing content length"
    assert node.call(path, echo="next").text == "next"


def test_interim_responses_are_skipped(node: RunningNode) -> None:
    answer = node.call(node.route("interim", "http"), interim=True, echo="final")
    assert (answer.status_code, answer.text) == (200, "final")


def test_a_flood_of_stderr_harms_nobody_and_is_cut_in_the_log(node: RunningNode, hot: str) -> None:
    path = node.route(f"flood-{hot}", hot)
    answer = node.call(path, stderr=2 << 20, echo="fine")
    assert (answer.status_code, answer.text) == (200, "fine")
    log = node.log(answer)
    assert log.startswith("nnn")
    if node.driver == "process":  # the Engine delivers stderr over a connection of its own, which may be behind
        assert log.endswith("\n-----max log size 1048576 bytes exceeded, truncating log-----\n")
    assert node.call(path, echo="next").text == "next"


def test_a_death_within_the_answer_is_seen_as_truncation(node: RunningNode) -> None:
    path = node.route("truncated", "http")
    with pytest.raises(httpx.RemoteProtocolError):
        node.call(path, size=10 << 20, die=True)
    assert node.call(path, echo="next").text == "next"
    calls = node.http.get("/v1/apps/e2e/calls", params={"path": "/truncated"}).json()["calls"]
    assert sorted(call["status"] for call in calls) == ["error", "success"]


def test_a_hanging_answer_times_out_and_the_next_call_works(node: RunningNode, hot: str) -> None:
    path = node.route(f"partial-{hot}", hot, timeout=2)
    if hot == "json":
        assert node.call(path, partial=True, echo="half of this").status_code == 504
    else:  # the client has seen the head: it sees the truncation
        with pytest.raises(httpx.RemoteProtocolError):
            node.call(path, partial=True, echo="half of this")
    assert node.call(path, echo="next").text == "next"


def test_memory_beyond_the_limit_is_told(node: RunningNode, any_format: str) -> None:
    answer = node.call(node.route(f"oom-{any_format}", any_format), allocate=400)
    assert answer.status_code == 502
    assert "container out of memory" in answer.json()["error"]["message"]


def test_a_body_that_comes_too_late_reaches_no_function(node: RunningNode, hot: str) -> None:
    path = node.route(f"late-{hot}", hot, timeout=2)
    before = node.call(path, tell=True).json()["born"]
    address = urlsplit(node.url)
    with socket.create_connection((address.hostname, address.port)) as late:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n"
        late.sendall(head.encode())
        answer = http.client.HTTPResponse(late)
        answer.begin()  # the deadline passes
        assert answer.status == 504
    assert node.call(path, tell=True).json()["born"] == before  # untouched, so it serves on


def test_a_client_that_leaves_ends_its_call(node: RunningNode, hot: str) -> None:
    path = node.route(f"gone-{hot}", hot, timeout=60)
    with pytest.raises(httpx.ReadTimeout):
        node.http.post(path, json={"sleep_ms": 30000}, timeout=1)
    answer = node.call(path, echo="mine")
    assert (answer.status_code, answer.text) == (200, "mine")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        calls = node.http.get("/v1/apps/e2e/calls", params={"path": f"/gone-{hot}"}).json()["calls"]
        if [call["error"] for call in calls if call["status"] == "error"] == ["context canceled"]:
            return
    raise AssertionError(calls)


def test_an_answer_before_the_input_is_read_is_delivered(node: RunningNode) -> None:
    path = node.route("early", "default", memory=512)
    answer = node.http.post(path, content=b'{"echo":"x"' + b" " * (10 << 20) + b"}")
    assert (answer.status_code, answer.text) == (200, "x")


def test_stats_are_consistent(node: RunningNode) -> None:
    path = node.route("counted", "http")
    before = node.http.get("/stats").json()
    node.call(path, echo="x")
    node.call(path, exit=1)
    after = node.http.get("/stats").json()
    assert after["Complete"] == before["Complete"] + 1
    assert after["Failed"] == before["Failed"] + 1
    assert (after["Queue"], after["Running"]) == (0, 0)
    assert after["FunctionStatsMap"]["/counted"] == {"Queue": 0, "Running": 0, "Complete": 1, "Failed": 1}
