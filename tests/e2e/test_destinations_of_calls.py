"""The records of async calls that have ended reach their destinations, from nodes and from runners."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.callback_receiver import KEY, Receiver, receiving
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.tls import Authority
from tests.support.waiting import until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def receiver(authority: Authority) -> Iterator[Receiver]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue())
    with receiving(tls) as server:
        yield server


@pytest.fixture(scope="module")
def sender(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp("sender")
    image = build_multi(data, data / "source")
    environment = {"FN_CALLBACK_ALLOW": "127.0.0.0/8", "SSL_CERT_FILE": str(authority.ca), "FN_MQ_VISIBILITY_S": "1"}
    with running_node("process", data, image, **environment) as node:
        node.route("first", "http")
        assert node.http.put("/v1/apps/e2e/secrets/CALLBACK_KEY", json={"value": KEY}).status_code == 200
        yield node


def callback(node: RunningNode, answer: httpx.Response) -> dict[str, Any]:
    """Return the record of the call that sends the record of another one; empty while there is none."""
    found = node.http.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}-callback").json()
    call: dict[str, Any] = found.get("call", {})
    return call


def test_the_record_of_a_call_that_succeeds_is_sent(sender: RunningNode, receiver: Receiver) -> None:
    urls = {"on_success": f"{receiver.url}/good", "on_failure": f"{receiver.url}/bad"}
    answer = sender.call(sender.route("good", "http", type="async", **urls), echo="done")
    assert until(lambda: callback(sender, answer).get("status") == "success")
    (body,) = receiver.of("/good")
    assert body["result"]["body"] == "done"
    record = sender.record(answer)
    assert {name: record[name] for name in body["call"]} == body["call"]
    assert receiver.of("/bad") == []


def test_the_record_of_a_call_that_fails_is_sent_after_its_last_attempt(
    sender: RunningNode, receiver: Receiver
) -> None:
    retry = {"attempts": 2, "backoff_s": 0}
    path = sender.route("fails", "http", type="async", on_failure=f"{receiver.url}/fails", retry=retry)
    answer = sender.call(path, status=500, echo="broken")
    assert until(lambda: callback(sender, answer).get("status") == "success")
    (body,) = receiver.of("/fails")
    assert (body["call"]["status"], body["call"]["attempt"], body["result"]["status"]) == ("error", 2, 500)


def test_the_record_of_a_call_that_is_cancelled_while_it_waits_is_sent(sender: RunningNode, receiver: Receiver) -> None:
    path = sender.route("cancelled", "http", type="async", on_failure=f"{receiver.url}/cancelled")
    answer = sender.http.post(path, json={"echo": "never"}, headers={"Fn-Delay": "3600"})
    cancel = f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}/cancel"
    assert sender.http.post(cancel).status_code == 200
    assert until(lambda: callback(sender, answer).get("status") == "success")
    (body,) = receiver.of("/cancelled")
    assert body["call"]["status"] == "cancelled"


def test_a_receiver_that_fails_gets_the_record_again(sender: RunningNode, receiver: Receiver) -> None:
    path = sender.route("again", "http", type="async", on_success=f"{receiver.url}/again")
    receiver.fails = 1
    answer = sender.call(path, echo="x")
    assert until(lambda: callback(sender, answer).get("status") == "success")
    record = callback(sender, answer)
    assert (record["attempt"], record["attempts"][0]["error"]) == (2, "the destination answered 500")
    assert len({call_id for path, call_id, _ in receiver.received if path == "/again"}) == 1
    assert len(receiver.of("/again")) == 2


@pytest.mark.parametrize(("auth", "status"), [("open", "success"), ("token", "error")])
def test_a_route_of_another_app_is_called_as_a_stranger_would(sender: RunningNode, auth: str, status: str) -> None:
    route = {"image": sender.image, "format": "http", "auth": auth}
    assert sender.http.put(f"/v1/apps/other/routes/{auth}", json={"route": route}).status_code == 200
    answer = sender.call(sender.route(f"to-{auth}", "http", type="async", on_success=f"other/{auth}"), echo="x")
    if status == "success":
        assert until(lambda: callback(sender, answer).get("status") == "success")
    else:
        assert until(lambda: bool(callback(sender, answer).get("attempts")))
        assert callback(sender, answer)["attempts"][0]["error"] == "the destination answered 401"
    calls = sender.http.get("/v1/apps/other/calls", params={"path": f"/{auth}"}).json()["calls"]
    assert len(calls) == (1 if status == "success" else 0)


def test_destinations_are_set_and_removed(sender: RunningNode) -> None:
    sender.route("set", "http", type="async", on_success="other/x")
    shown = sender.http.get("/v1/apps/e2e/routes/set").json()["route"]
    assert shown["on_success"] == "other/x"
    bad = sender.http.patch("/v1/apps/e2e/routes/set", json={"route": {"on_failure": "ftp://x"}})
    assert (bad.status_code, bad.json()["error"]["message"][:48]) == (
        400,
        "Invalid delivery: on_failure must be an http or ",
    )
    assert sender.http.patch("/v1/apps/e2e/routes/set", json={"route": {"on_success": None}}).status_code == 200
    assert "on_success" not in sender.http.get("/v1/apps/e2e/routes/set").json()["route"]


def test_the_record_of_a_detached_call_of_a_fn_is_sent(sender: RunningNode, receiver: Receiver) -> None:
    app = sender.http.post("/v2/apps", json={"name": "fns"}).json()
    assert sender.http.put("/v1/apps/fns/secrets/CALLBACK_KEY", json={"value": KEY}).status_code == 200
    annotations = {"hearth/on_success": f"{receiver.url}/fn"}
    fn = {"name": "f", "app_id": app["id"], "image": sender.image, "annotations": annotations}
    fn_id = sender.http.post("/v2/fns", json=fn).json()["id"]
    answer = sender.http.post(f"/invoke/{fn_id}", json={"echo": "x"}, headers={"Fn-Invoke-Type": "detached"})
    assert until(lambda: bool(receiver.of("/fn")))
    assert receiver.of("/fn")[0]["call"]["id"] == answer.headers["fn-call-id"]


def test_a_call_whose_node_died_sends_its_record(authority: Authority, receiver: Receiver, tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    environment = {"FN_CALLBACK_ALLOW": "127.0.0.0/8", "SSL_CERT_FILE": str(authority.ca), "FN_MQ_VISIBILITY_S": "1"}
    with running_node("process", tmp_path, image, **environment) as node:
        path = node.route("dies", "http", type="async", timeout=60, on_failure=f"{receiver.url}/dies")
        assert node.http.put("/v1/apps/e2e/secrets/CALLBACK_KEY", json={"value": KEY}).status_code == 200
        answer = node.call(path, sleep_ms=60_000)
        assert until(lambda: node.record(answer)["status"] == "running")
        node.stop(signal.SIGKILL)
    with running_node("process", tmp_path, image, FN_RUNNER_QUIET_S="0", **environment):
        assert until(lambda: bool(receiver.of("/dies")))
    (body,) = receiver.of("/dies")
    assert body["call"]["error"].startswith("the server stopped while the call was running")
