"""The conformance rows of invocations (protocols specification 10), through HTTP, on every driver."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import json
import urllib.parse

import httpx
import pytest
from tests.support.node import RunningNode
from tests.support.raw_http import RawClient
from tests.support.waiting import until


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_app_is_not_found(node: RunningNode, method: str) -> None:
    answer = node.http.request(method, "/r/nosuchapp/x")
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "App not found"}})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route_is_not_found(node: RunningNode, method: str) -> None:
    node.route("known", "http")
    answer = node.http.request(method, "/r/e2e/unknown")
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


def ended(format_name: str, code: int) -> tuple[str, str]:
    """What a client is told, and what is recorded, of a function that ends during its call."""
    ended = f"container exit code {code}"
    if format_name == "http-stream":
        return "error receiving function response", f"error receiving function response: {ended}"
    return ended, ended


def test_a_failing_function_is_a_502_with_the_routes_headers(node: RunningNode, any_format: str) -> None:
    path = node.route(f"fails-{any_format}", any_format, headers={"X-Function": ["Test"]})
    answer = node.call(path, exit=2)
    told, recorded = ended(any_format, 2)
    assert (answer.status_code, answer.json()) == (502, {"error": {"message": told}})
    assert answer.headers["x-function"] == "Test"
    record = node.record(answer)
    assert (record["status"], record["error"]) == ("error", recorded)


def test_an_image_whose_program_fails_is_a_502_with_the_routes_headers(node: RunningNode, any_format: str) -> None:
    config = {"CRASH_AT_START": "3"}
    path = node.route(f"crash-{any_format}", any_format, headers={"X-Function": ["Test"]}, config=config)
    answer = node.call(path, echo="never")
    assert answer.status_code == 502
    listens = any_format == "http-stream"
    told = "Container failed to initialize, please ensure" if listens else "container exit code 3"
    assert answer.json()["error"]["message"].startswith(told)
    assert "container exit code 3" in node.record(answer)["error"]
    assert answer.headers["x-function"] == "Test"


def test_memory_beyond_the_machine_is_refused(node: RunningNode, any_format: str) -> None:
    answer = node.call(node.route(f"huge-{any_format}", any_format, memory=8192), echo="never")
    assert (answer.status_code, answer.json()) == (503, {"error": {"message": "Timed out - server too busy"}})
    assert "retry-after" not in answer.headers  # it will never fit


def test_a_hot_function_that_exits_0_during_a_call_is_a_502(node: RunningNode, hot: str) -> None:
    answer = node.call(node.route(f"zero-{hot}", hot), exit=0)
    told, recorded = ended(hot, 0)
    assert (answer.status_code, answer.json()) == (502, {"error": {"message": told}})
    assert node.record(answer)["error"] == recorded


def test_a_missing_image_is_told(node: RunningNode, any_format: str) -> None:
    image = "nosuchbundle:1" if node.driver == "process" else "localhost:1/no/such:1"
    answer = node.http.post(node.route(f"missing-{any_format}", any_format, image=image))
    # Without a registry Docker cannot know whether the image exists: it was unreachable.
    assert answer.status_code == (404 if node.driver == "process" else 502)
    assert answer.json()["error"]["message"].startswith(f"Failed to pull image '{image}': ")
    assert node.record(answer)["status"] == "error"


def test_a_cold_call_beyond_its_deadline_times_out(node: RunningNode) -> None:
    path = node.route("slow-default", "default", timeout=2)
    answer = node.call_once_free(path, sleep_ms=5000)
    assert (answer.status_code, answer.json()) == (504, {"error": {"message": "Timed out"}})
    record = node.record(answer)
    assert (record["status"], record["error"]) == ("timeout", "timed out after 2 s (timeout of the route)")


def test_the_call_after_a_timeout_gets_its_own_answer(node: RunningNode, hot: str) -> None:
    path = node.route(f"slow-{hot}", hot, timeout=2)
    assert node.call_once_free(path, sleep_ms=5000, echo="late").status_code == 504
    answer = node.call_once_free(path, echo="mine")
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


def test_each_of_two_calls_of_one_container_gets_its_own_body(node: RunningNode, hot: str) -> None:
    path = node.route(f"one-{hot}", hot)

    def share_one() -> bool:
        told = [node.http.post(f"{path}?do=%7B%22tell%22:1%7D", content=body).json() for body in (b"x" * 70_000, b"y")]
        assert [one["body"] for one in told] == ["x" * 70_000, "y"]
        return bool(told[0]["born"] == told[1]["born"])

    assert until(share_one), (
        "a function may answer before it is known that it has taken all of its input, but not always"
    )


def test_a_json_answer_that_fills_a_read_buffer_leaves_its_container_usable(node: RunningNode) -> None:
    # Room for one: the second call may come while its container still waits for late stderr.
    path = node.route("one-json", "json", memory=4500)
    before = node.call(path, tell=True).json()["born"]
    frame = len(json.dumps({"body": "", "protocol": {"status_code": 200}}))
    for buffer in (512, 1024, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 1048576):
        for size in (buffer - 1, buffer, buffer + 1):  # the object ends before, with and behind the buffer
            answer = node.call(path, size=size - frame)
            assert (answer.status_code, len(answer.content)) == (200, size - frame)
    assert node.call(path, tell=True).json()["born"] == before


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
    expected = {"FN_FORMAT", "FN_APP_NAME", "FN_PATH", "FN_MEMORY", "FN_TYPE"}
    if any_format == "default":
        expected |= {"FN_DEADLINE", "FN_METHOD", "FN_REQUEST_URL", "FN_CALL_ID"}
    if any_format == "http-stream":
        expected |= {"FN_LISTENER", "FN_APP_ID", "FN_FN_ID", "FN_CONCURRENCY"}
    assert {name for name in environment if name.startswith("FN_") and "HEADER" not in name} == expected
    assert {name for name in environment if name.endswith("_VAR")} == {"APP_VAR", "ROUTE_VAR"}
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
    created_at = dt.datetime.fromisoformat(node.record(answer)["created_at"])
    assert dt.datetime.fromisoformat(call["deadline"]) == created_at + dt.timedelta(seconds=30)
    assert call["body"] == '{"tell":1}'
    assert call["protocol"]["type"] == "http"
    assert call["protocol"]["method"] == "POST"
    assert call["protocol"]["request_url"] == f"{node.url}{path}?a=1&b=2"


def test_json_input_without_data_has_an_empty_body(node: RunningNode) -> None:
    path = node.route("fields", "json")
    headers = {"X-A": "b", "Accept": "*/*", "Accept-Encoding": "x", "User-Agent": "y", "Connection": "keep-alive"}
    call = node.http.get(f"{path}?do=%7B%22tell%22:1%7D", headers=headers).json()["call"]
    assert (call["body"], call["content_type"]) == ("", "")
    assert call["protocol"]["headers"] == {
        "Accept": ["*/*"],
        "Accept-Encoding": ["x"],
        "Connection": ["keep-alive"],
        "User-Agent": ["y"],
        "X-A": ["b"],
    }
    assert (call["protocol"]["type"], call["protocol"]["method"]) == ("http", "GET")


def test_json_input_carries_the_data(node: RunningNode) -> None:
    path = node.route("fields", "json")
    call = node.http.post(f"{path}?do=%7B%22tell%22:1%7D", json={"a": "a"}).json()["call"]
    assert json.loads(call["body"]) == {"a": "a"}


def test_a_body_of_unknown_length_is_echoed(node: RunningNode, any_format: str) -> None:
    path = node.route(f"chunked-{any_format}", any_format)
    answer = node.http.post(path, content=iter([b"one ", b"two ", b"three"]))
    assert (answer.status_code, answer.text) == (200, "one two three")
    if any_format == "http":
        told = node.http.post(f"{path}?do=%7B%22tell%22:1%7D", content=iter([b"one ", b"two"])).json()
        assert (told["headers"]["Transfer-Encoding"], told["body"]) == (["chunked"], "one two")
        assert "Content-Length" not in told["headers"]


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


@pytest.mark.parametrize(
    "garbage",
    [
        "this is no answer\n\n\n\n",
        "{nonsense\n\n",
        "left in\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        'left in\n{"body":"x"}\n',
    ],
)
def test_garbage_is_a_502_and_the_next_call_works(node: RunningNode, hot: str, garbage: str) -> None:
    path = node.route(f"garbage-{hot}", hot)
    before = node.call(path, tell=True).json()["born"]
    answer = node.call(path, raw=garbage)
    assert answer.status_code == 502
    said = "invalid function response" if hot == "http-stream" else f"invalid {hot} response from function err: "
    assert answer.json()["error"]["message"].startswith(said)
    assert node.record(answer)["status"] == "error"
    assert node.call(path, tell=True).json()["born"] != before


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
    assert until(lambda: node.log(answer).startswith("nnn"))
    log = node.log(answer)
    if node.driver == "process":  # the Engine delivers stderr over a connection of its own, which may be behind
        assert log.endswith("\n-----max log size 1048576 bytes exceeded, truncating log-----\n")
    assert node.call(path, echo="next").text == "next"


@pytest.mark.parametrize("format_name", ["default", "http"])
def test_a_death_within_the_answer_is_seen_as_truncation(node: RunningNode, format_name: str) -> None:
    path = node.route(f"truncated-{format_name}", format_name)
    with pytest.raises(httpx.RemoteProtocolError):
        node.call(path, size=10 << 20, die=True)
    assert node.call(path, echo="next").text == "next"
    calls = node.http.get("/v1/apps/e2e/calls", params={"path": f"/truncated-{format_name}"}).json()["calls"]
    assert sorted(call["status"] for call in calls) == ["error", "success"]
    log = (node.data / "server.log").read_text()
    told = [line for line in log.splitlines() if f"route=/truncated-{format_name}" in line and "call_id=" in line]
    assert ["level=info" in line and "container exit code" in line for line in told] == [True]
    assert "without completing" not in log


def test_output_of_default_is_held_up_to_64_kib(node: RunningNode) -> None:
    """Until then a failure is an answer of its own; beyond, the client has part of the output already."""
    path = node.route("held", "default")
    assert node.call(path, size=64 << 10, die=True).status_code == 502
    with pytest.raises(httpx.RemoteProtocolError):
        node.call(path, size=(64 << 10) + 100, die=True)


def test_a_hanging_answer_times_out_and_the_next_call_works(node: RunningNode, hot: str) -> None:
    path = node.route(f"partial-{hot}", hot, timeout=2)
    node.call_once_free(path, echo="warm")
    if hot == "json":
        assert node.call(path, partial=True, echo="half of this").status_code == 504
    else:  # the client has seen the head: it sees the truncation
        with pytest.raises(httpx.RemoteProtocolError):
            node.call(path, partial=True, echo="half of this")
    assert node.call_once_free(path, echo="next").text == "next"


def test_memory_beyond_the_limit_is_told(node: RunningNode, any_format: str) -> None:
    answer = node.call(node.route(f"oom-{any_format}", any_format), allocate=400)
    assert answer.status_code == 502
    told = "error receiving function response" if any_format == "http-stream" else "container out of memory"
    assert told in answer.json()["error"]["message"]
    assert "container out of memory" in node.record(answer)["error"]


def test_a_body_that_comes_too_late_reaches_no_function(node: RunningNode, hot: str) -> None:
    path = node.route(f"late-{hot}", hot, timeout=3)
    before = node.call_once_free(path, tell=True).json()["born"]
    bodies = ['{"echo":"first"}', '{"tell":1,"a":2}']
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n"
    with RawClient(node.url) as first, RawClient(node.url) as second:
        first.send(head)
        late = first.answer()  # the time for its beginning passes
        assert late
        assert late.status == 408
        assert first.is_closed()
        second.send(head)
        assert second.quiet_for(0.1)
        with contextlib.suppress(OSError):  # nobody reads it
            first.send(bodies[0])
        assert second.quiet_for(0.1)
        second.send(bodies[1])
        answer = second.answer()
        assert answer
        told = json.loads(answer.body)
        assert (told["body"], told["born"]) == (bodies[1], before)  # untouched by the first, so it serves on


def test_a_client_that_leaves_ends_its_call(node: RunningNode, hot: str) -> None:
    path = node.route(f"gone-{hot}", hot, timeout=60)
    assert node.call(path, echo="warm").text == "warm"
    with RawClient(node.url) as leaving:
        leaving.send(f'POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 19\r\n\r\n{{"sleep_ms": 90000}}')
        assert until(lambda: node.http.get("/stats").json()["FunctionStatsMap"][f"/gone-{hot}"]["Running"] == 1)
    answer = node.call(path, echo="mine")
    assert (answer.status_code, answer.text) == (200, "mine")

    def errors() -> list[str]:
        calls = node.http.get("/v1/apps/e2e/calls", params={"path": f"/gone-{hot}"}).json()["calls"]
        return [call["error"] for call in calls if call["status"] == "error"]

    assert until(lambda: errors() == ["context canceled"]), errors()


def test_an_answer_before_the_input_is_read_is_delivered(node: RunningNode, any_format: str) -> None:
    config = {"EARLY": "1"} if any_format == "json" else {}
    path = node.route(f"early-{any_format}", any_format, config=config)
    do = urllib.parse.quote('{"unread":1,"echo":"early"}')
    for _ in range(2):
        answer = node.http.post(f"{path}?do={do}", content=b"x" * (10 << 20))
        assert (answer.status_code, answer.text) == (200, "early")


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
