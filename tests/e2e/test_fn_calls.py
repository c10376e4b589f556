"""Calls of fns: by their id and through triggers, on every driver, with a function that listens as today's kits do."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.support.node import RunningNode
from tests.support.raw_http import RawClient
from tests.support.waiting import until

_numbers = itertools.count()


class Fn:
    """A fn of its own app on a node."""

    def __init__(self, node: RunningNode, *, source: str = "/hello", app: object = None, **fields: Any) -> None:
        self.node = node
        self.app_name = f"app{next(_numbers)}"
        self.app_id = self._made("apps", name=self.app_name, **(app if isinstance(app, dict) else {}))
        body = {"memory": 128, "timeout": 30, "idle_timeout": 60, **fields}
        self.id = self._made("fns", app_id=self.app_id, name="fn", image=node.image, **body)
        self.trigger_id = self._made(
            "triggers", app_id=self.app_id, fn_id=self.id, name="t", type="http", source=source
        )

    def _made(self, kind: str, **body: Any) -> str:
        answer = self.node.http.post(f"/v2/{kind}", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def invoke(self, fields: dict[str, str] | None = None, **orders: Any) -> httpx.Response:
        """Call it by its id."""
        return self.node.http.post(f"/invoke/{self.id}", json=orders, headers=fields)

    def trigger(self, method: str = "POST", path: str = "/hello", **orders: Any) -> httpx.Response:
        """Call it through its trigger."""
        url = f"/t/{self.app_name}{path}?do={quote(json.dumps(orders))}"
        return self.node.http.request(method, url, content=b"body", headers={"X-Mine": "1", "Fn-Intent": "cloud"})

    def call(self, answer: httpx.Response) -> dict[str, Any]:
        """The record of an answered call."""
        found = self.node.http.get(f"/v2/fns/{self.id}/calls/{answer.headers['fn-call-id']}")
        assert found.status_code == 200, found.text
        call: dict[str, Any] = found.json()
        return call


def message(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    body = answer.json()
    assert list(body) == ["message"]
    return answer.status_code, str(body["message"])


def test_a_fn_is_called_by_its_id_with_its_environment(node: RunningNode) -> None:
    fn = Fn(node, app={"config": {"A": "app", "B": "app", "FN_TYPE": "mine"}}, config={"B": "fn"})
    answer = fn.invoke({"X-Mine": "1", "Fn-Deadline": "mine"}, tell=True, status=404, headers={"X-Answer": "yes"})
    assert answer.status_code == 200
    assert (answer.headers["fn-http-status"], answer.headers["fn-http-h-x-answer"]) == ("404", "yes")
    assert len(answer.headers["fn-call-id"]) == 26
    assert "fn_call_id" not in answer.headers
    assert "xxx-fxlb-wait" not in answer.headers
    seen = answer.json()
    assert {name: seen["env"].get(name) for name in ("A", "B", "FN_TYPE", "FN_MEMORY", "FN_FORMAT")} == {
        "A": "app",
        "B": "fn",
        "FN_TYPE": "sync",
        "FN_MEMORY": "128",
        "FN_FORMAT": "http-stream",
    }
    assert (seen["env"]["FN_FN_ID"], seen["env"]["FN_APP_ID"]) == (fn.id, fn.app_id)
    assert (seen["env"]["FN_FN_NAME"], seen["env"]["FN_APP_NAME"]) == ("fn", fn.app_name)
    assert seen["env"]["FN_LISTENER"].startswith("unix:")
    headers = seen["raw_headers"]
    assert headers["X-Mine"] == ["1"]
    assert headers["Fn-Call-Id"] == [answer.headers["fn-call-id"]]
    assert headers["Fn-Deadline"] != ["mine"]
    assert not {"Fn-Http-Method", "Fn-Http-Request-Url", "Fn-Intent"} & headers.keys()
    assert fn.call(answer)["status"] == "success"


def test_the_commands_of_the_page_work_as_they_are_written(node: RunningNode) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api-v2.md").read_text()
    script = page.partition("```sh\n")[2].partition("```")[0]
    for shown, here in (("localhost:8080", node.url), ("fnproject/hello:0.0.2", node.image)):
        assert shown in script
        script = script.replace(shown, here)
    command = ["bash", "-euo", "pipefail", "-c", f"{script}\necho\necho $FN"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *_, answers, fn_id = done.stdout.splitlines()
    assert answers.endswith('{"name": "Ada"}')
    calls = node.http.get(f"/v2/fns/{fn_id}/calls").json()["items"]
    assert [(call["status"], "trigger_id" in call) for call in calls] == [("success", True), ("success", False)]


def test_a_trigger_is_an_http_request_and_its_answer(node: RunningNode) -> None:
    fn = Fn(node, source="/a b/c")
    answer = fn.trigger("PATCH", "/a%20b/c", tell=True, status=201, headers={"X-Answer": ["1", "2"]}, type="text/x")
    assert answer.status_code == 201
    assert answer.headers.get_list("x-answer") == ["1", "2"]
    assert answer.headers["fn-call-id"]
    assert not [name for name in answer.headers if name.startswith("fn-http")]
    seen = answer.json()
    headers = seen["raw_headers"]
    (url,) = headers["Fn-Http-Request-Url"]
    assert url.startswith(f"{node.url}/t/{fn.app_name}/a%20b/c?do=")
    assert (headers["Fn-Http-Method"], headers["Fn-Intent"]) == (["PATCH"], ["httprequest"])
    assert (headers["Fn-Http-H-X-Mine"], headers["Fn-Http-H-Fn-Intent"]) == (["1"], ["cloud"])
    assert "X-Mine" not in headers
    assert seen["body"] == "body"


def test_a_record_names_the_trigger_of_its_call(node: RunningNode) -> None:
    fn = Fn(node)
    assert fn.call(fn.trigger(echo="x"))["trigger_id"] == fn.trigger_id
    assert "trigger_id" not in fn.call(fn.invoke(echo="x"))


def test_the_syslog_server_of_an_app_gets_what_its_functions_write(node: RunningNode) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        url = f"udp://127.0.0.1:{server.getsockname()[1]}"
        fn = Fn(node, app={"syslog_url": url})
        answer = fn.invoke(say="hello from the fn", echo="x")
        assert answer.text == "x"
        while "hello from the fn" not in (told := server.recv(65536).decode()):
            pass  # the opening of the container
        assert f" app_id={fn.app_id},fn_id={fn.id} " in told
        assert f" {answer.headers['fn-call-id']} - " in told
        path = node.route("logs-elsewhere", "http-stream")
        app = node.http.get("/v1/apps/e2e").json()["app"]
        node.http.put(f"/v2/apps/{app['id']}", json={"syslog_url": url})
        try:
            assert node.http.get("/v1/apps/e2e").json()["app"]["syslog_url"] == url
            assert node.call(path, say="hello from the route").status_code == 200
            while "hello from the route" not in server.recv(65536).decode():
                pass
        finally:
            node.http.put(f"/v2/apps/{app['id']}", json={"syslog_url": ""})


def test_a_syslog_server_that_is_away_fails_the_call(node: RunningNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    fn = Fn(node, app={"syslog_url": f"tcp://127.0.0.1:{nobody}"})
    answer = fn.invoke(echo="x")
    assert message(answer) == (500, "Syslog Unavailable")
    assert fn.call(answer)["status"] == "error"


def test_a_source_is_matched_as_a_whole(node: RunningNode) -> None:
    fn = Fn(node, source="/")
    for path in ("", "/"):
        assert fn.trigger(path=path, echo="root").text == "root"
    for path in ("/x", "//"):
        assert message(fn.trigger(path=path)) == (404, "Trigger not found")
    assert message(node.http.get("/t/nobody/x")) == (404, "App not found")
    assert message(node.http.post("/invoke/nobody")) == (404, "Fn not found")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/invoke/", 404, "Path not found: POST /invoke/"),
        ("POST", "/invoke/a/b", 404, "Path not found: POST /invoke/a/b"),
        ("GET", "/t/", 404, "Path not found: GET /t/"),
        ("GET", "/invoke/x", 405, "Method not allowed: GET /invoke/x"),
    ],
)
def test_paths_that_name_no_fn(node: RunningNode, method: str, path: str, status: int, text: str) -> None:
    answer = node.http.request(method, path)
    assert message(answer) == (status, text)
    assert "fn-call-id" not in answer.headers


def test_only_post_invokes_also_a_fn_that_is_known(node: RunningNode) -> None:
    fn = Fn(node)
    assert fn.invoke(echo="x").text == "x"
    assert message(node.http.put(f"/invoke/{fn.id}")) == (405, f"Method not allowed: PUT /invoke/{fn.id}")


def test_errors_of_a_function_have_no_wrapper_and_name_the_call(node: RunningNode) -> None:
    fn = Fn(node)
    for answer, status, text in [
        (fn.invoke(wire_status=502), 502, "function failed"),
        (fn.invoke(wire_status=504), 504, "Timed out"),
        (fn.invoke(wire_status=418), 502, "invalid function response"),
        (fn.invoke(exit=1), 502, "error receiving function response"),
        (fn.trigger(exit=1), 502, "error receiving function response"),
    ]:
        assert message(answer) == (status, text)
        assert fn.call(answer)["status"] == ("timeout" if status == 504 else "error")


def test_a_fn_that_takes_too_long_is_a_504(node: RunningNode) -> None:
    fn = Fn(node, timeout=1)
    while (answer := fn.trigger(sleep_ms=300_000)).status_code == 503:  # a busy machine starts slowly
        assert message(answer)[1].endswith("server too busy")
    assert message(answer) == (504, "Timed out")
    assert fn.call(answer)["status"] == "timeout"


def test_a_fn_that_never_fits_is_no_call(node: RunningNode) -> None:
    answer = Fn(node, memory=8192).invoke(echo="never")
    assert message(answer) == (400, "Requested CPU/Memory cannot be allocated")
    assert "fn-call-id" not in answer.headers


def test_a_change_acts_at_once_on_the_node_that_made_it(node: RunningNode) -> None:
    fn = Fn(node, config={"V": "1"})

    def seen() -> tuple[str, str]:
        told = fn.invoke(tell=True).json()
        return told["env"].get("V", ""), told["born"]

    first, born = seen()
    assert (first, seen()) == ("1", ("1", born))
    node.http.put(f"/v2/fns/{fn.id}", json={"config": {"V": "2"}})
    changed, second_born = seen()
    assert (changed, second_born != born) == ("2", True)
    node.http.put(f"/v2/fns/{fn.id}", json={"annotations": {"k": 1}})
    assert seen()[1] != second_born
    node.http.put(f"/v2/triggers/{fn.trigger_id}", json={"source": "/moved"})
    assert message(fn.trigger()) == (404, "Trigger not found")
    assert fn.trigger(path="/moved", echo="x").text == "x"
    node.http.delete(f"/v2/triggers/{fn.trigger_id}")
    assert message(fn.trigger(path="/moved")) == (404, "Trigger not found")
    node.http.delete(f"/v2/fns/{fn.id}")
    assert message(fn.invoke()) == (404, "Fn not found")


def test_bodies_of_any_kind_pass(node: RunningNode) -> None:
    fn = Fn(node)
    large = bytes(range(256)) * 4096
    for content in (b"", b"\x80\x00", large, iter([large[:70_000], large[70_000:]])):
        answer = node.http.post(f"/invoke/{fn.id}", content=content)
        assert answer.status_code == 200
        assert answer.content == (content if isinstance(content, bytes) else large)
    with RawClient(node.url) as client:
        client.send(f"HEAD /t/{fn.app_name}/hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answered = client.answer("HEAD")
        assert answered
        assert (answered.status, answered.body) == (200, b"")


def test_a_detached_call_is_accepted_and_runs_later(node: RunningNode) -> None:
    fn = Fn(node)
    answer = fn.invoke({"Fn-Invoke-Type": "detached"}, say="in the log", tell=True)
    assert (answer.status_code, answer.content) == (202, b"")
    assert until(lambda: fn.call(answer)["status"] not in ("queued", "running"), 60)
    assert fn.call(answer)["status"] == "success"
    call_id = answer.headers["fn-call-id"]
    log = node.http.get(f"/v2/fns/{fn.id}/calls/{call_id}/log", headers={"Accept": "text/plain"}).text
    assert "in the log" in log
    assert '"FN_TYPE": "sync"' in log
    assert [call["id"] for call in node.http.get(f"/v2/fns/{fn.id}/calls").json()["items"]] == [call_id]


def test_a_detached_call_that_fails_is_kept_and_runs_again_and_one_that_runs_can_be_cancelled(
    node: RunningNode,
) -> None:
    fn, detached = Fn(node, annotations={"hearth/dead_letters": True}), {"Fn-Invoke-Type": "detached"}
    answer = fn.invoke(detached, exit=3)
    assert until(lambda: fn.call(answer)["status"] == "error")
    assert fn.call(answer)["dead"]
    letters = f"/v1/apps/{fn.app_name}/dead-letters"
    (letter,) = node.http.get(letters, params={"route": "fn"}).json()["calls"]
    assert letter["id"] == answer.headers["fn-call-id"]
    new = node.http.post(f"{letters}/{letter['id']}/redrive").json()["call_id"]
    assert until(lambda: [one["id"] for one in node.http.get(letters).json()["calls"]] == [new]), "it fails again"
    running = fn.invoke(detached, sleep_ms=60_000)
    assert until(lambda: fn.call(running)["status"] == "running")
    where = f"/v2/fns/{fn.id}/calls/{running.headers['fn-call-id']}/cancel"
    assert node.http.post(where).json()["status"] == "cancelled"
    assert message(node.http.post(where)) == (409, "The call has ended: cancelled")


def test_only_the_exact_value_detaches_and_only_by_id(node: RunningNode) -> None:
    fn = Fn(node)
    assert fn.invoke({"Fn-Invoke-Type": "Detached"}, echo="x").text == "x"
    answer = node.http.post(f"/t/{fn.app_name}/hello", json={"echo": "x"}, headers={"Fn-Invoke-Type": "detached"})
    assert (answer.status_code, answer.text) == (200, "x")


def test_an_app_that_asks_for_a_token_asks_for_it_at_its_fns_too(node: RunningNode) -> None:
    fn = Fn(node)
    assert node.http.patch(f"/v1/apps/{fn.app_name}", json={"app": {"auth": "token"}}).status_code == 200
    for answer in (fn.invoke(echo="x"), fn.trigger(echo="x")):
        assert answer.status_code == 401
        assert list(answer.json()) == ["message"]
    token = (node.data / "admin-token").read_text().strip()
    assert fn.invoke({"Authorization": f"Bearer {token}"}, echo="x").text == "x"
