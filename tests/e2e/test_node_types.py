"""What each type of node serves, and what a small fleet does together."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.callback_receiver import KEY, receiving
from tests.support.cli import Cli
from tests.support.fleet import RUNNER_TOKEN, Fleet, running_fleet
from tests.support.held import listens
from tests.support.node import HEARTH, WITNESS, build_bundle
from tests.support.raw_http import RawClient
from tests.support.waiting import until
from tests.support.witness import watching

from hearth import __version__, settings
from hearth.models.errors import StartUpError
from hearth.nodes import open_node

NO_API = "Invoking api /v1/ requests is not supported on nodes configured as type Runner"
#: What a poll takes that finds nothing.
POLL_S = 30
NO_CALLS = "Invoking routes /r/ is not supported on nodes configured as type API"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), runners=2, FN_CALLBACK_ALLOW="127.0.0.0/8") as running:
        yield running


def test_an_api_node_runs_nothing(fleet: Fleet) -> None:
    fleet.api.route("sync", "http")
    fleet.api.route("later", "http", type="async")
    for path in ("/r/e2e/sync", "/r/e2e/later", "/r/nobody/x"):
        answer = fleet.api.http.post(path)
        assert (answer.status_code, answer.json()) == (400, {"error": {"message": NO_CALLS}})
    zero = {"Queue": 0, "Running": 0, "Complete": 0, "Failed": 0, "FunctionStatsMap": {}}
    assert fleet.api.http.get("/stats").json() == zero
    assert fleet.api.http.get("/readyz").status_code == 200
    assert fleet.api.http.get("/r").json() == {"error": {"message": "Path not found: /r"}}


@pytest.mark.parametrize("path", ["apps", "apps/", "apps/e2e", "runner/async", "openapi.json", "none", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_runner_serves_no_api(fleet: Fleet, method: str, path: str) -> None:
    answer = fleet.runners[0].http.request(method, f"/v1/{path}")
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": NO_API}})


@pytest.mark.parametrize("path", ["/", "/version", "/stats", "/healthz", "/readyz"])
def test_a_runner_serves_the_small_pages(fleet: Fleet, path: str) -> None:
    assert fleet.runners[0].http.get(path).status_code == 200


def test_a_runner_knows_what_is_unknown(fleet: Fleet) -> None:
    fleet.api.route("known", "http")
    for path, message in (("/r/nobody/x", "App not found"), ("/r/e2e/nothing", "Route not found")):
        answer = fleet.runners[0].http.post(path)
        assert (answer.status_code, answer.json()) == (404, {"error": {"message": message}})


@pytest.mark.parametrize("path", ["", "a/b", "a b"])
def test_a_runner_finds_every_path(fleet: Fleet, path: str) -> None:
    name = path.replace(" ", "%20") or "/"
    fleet.api.route(name, "http")
    answer = fleet.call(fleet.runners[0], f"/r/e2e/{name.lstrip('/')}", echo="x")
    assert (answer.status_code, answer.text) == (200, "x")


@pytest.mark.parametrize("format_name", ["default", "http", "json"])
def test_a_call_on_a_runner_is_recorded_before_its_answer_ends(fleet: Fleet, format_name: str) -> None:
    path = fleet.api.route(f"sync-{format_name}", format_name, headers={"X-Route": ["here"]})
    answer = fleet.call(fleet.runners[0], path, echo="done", say="a line")
    assert (answer.status_code, answer.text, answer.headers["x-route"]) == (200, "done", "here")
    assert fleet.api.record(answer)["status"] == "success"
    assert "a line" in fleet.api.log(answer)
    answer = fleet.call(fleet.runners[0], path, exit=3)
    assert answer.status_code == 502
    assert fleet.api.record(answer)["error"] == "container exit code 3"


def test_an_async_call_of_a_runner_runs_on_any(fleet: Fleet) -> None:
    path = fleet.api.route("any", "json", type="async", config={"A": "b"})
    answers = [fleet.runners[n % 2].http.post(path, content=json.dumps({"tell": True})) for n in range(20)]
    for answer in answers:
        assert fleet.api.ended(answer)["status"] == "success"
        told = json.loads(json.loads(fleet.api.log(answer))["body"])
        assert (told["id"], told["env"]["A"]) == (answer.headers["fn_call_id"], "b")
    done = [
        r.http.get("/stats").json()["FunctionStatsMap"].get("/any", {"Complete": 0})["Complete"] for r in fleet.runners
    ]
    assert sum(done) == 20


def test_calls_of_runners_have_results_and_are_tried_again(fleet: Fleet) -> None:
    api, runner = fleet.api, fleet.runners[0]
    path = api.route("again", "http", type="async", retry={"attempts": 2, "backoff_s": 0}, result_ttl_s=60)
    failing = runner.call(path, status=500, say="a line", echo="broken")
    call = api.ended(failing)
    assert (call["status"], call["attempt"], call["attempts"][0]["error"]) == ("error", 2, "function answered 500")
    told = api.http.get(f"/v1/apps/e2e/calls/{failing.headers['fn_call_id']}/result")
    assert (told.status_code, told.content, told.headers["fn-call-status"]) == (500, b"broken", "error")
    sync = api.route("preferred", "http")
    preferred = runner.http.post(sync, json={"echo": "later"}, headers={"Prefer": "respond-async"})
    assert preferred.status_code == 202
    with httpx.Client(base_url=api.url, timeout=60) as stranger:
        assert stranger.get(f"{preferred.headers['location']}&wait=30").content == b"later"


def nodes(fleet: Fleet) -> dict[str, Any]:
    """The nodes that the API node knows, by the folder of their data."""
    listed = {one["id"]: one for one in fleet.api.http.get("/v1/nodes").json()["nodes"]}
    folders = {one.data.name: (one.data / "node-id").read_text().strip() for one in (fleet.api, *fleet.runners)}
    return {name: listed[node_id] for name, node_id in folders.items() if node_id in listed}


def test_the_api_node_lists_itself_and_its_runners_with_their_containers(fleet: Fleet) -> None:
    path = fleet.api.route("listed", "json", idle_timeout=60)
    assert fleet.call(fleet.runners[0], path, echo="x").status_code == 200

    def containers() -> list[Any]:
        found = nodes(fleet).get(fleet.runners[0].data.name, {"functions": []})["functions"]
        return [one for one in found if (one["app"], one["function"]) == ("e2e", "/listed")]

    assert until(lambda: len(nodes(fleet)) == 3 and bool(containers()))
    assert sum(containers()[0][state] for state in ("start", "idle", "busy")) == 1
    found = nodes(fleet)
    assert [found[one]["type"] for one in ("api", *(one.data.name for one in fleet.runners))] == [
        "api",
        *["runner"] * 2,
    ]
    assert {(one["state"], one["version"]) for one in found.values()} == {("ready", __version__)}
    assert {one["memory_mib"] for one in found.values()} == {0, 8191}
    assert fleet.runners[0].http.get("/v1/nodes").status_code == 400
    shown = Cli(fleet.api.url, fleet.folder).run("nodes", "list")
    assert shown.returncode == 0, shown.stderr
    assert max(len(line) for line in shown.stdout.splitlines()) <= 68 + len(socket.gethostname())
    for one in found.values():
        assert one["id"] in shown.stdout


def test_a_node_that_is_told_to_drain_finishes_its_calls_and_takes_no_others(tmp_path: Path) -> None:
    with running_fleet(tmp_path, runners=2) as fleet:
        gone, stays = fleet.runners
        later = fleet.api.route("later", "json", type="async", timeout=60)
        sync = fleet.api.route("sync", "json", timeout=60)
        assert fleet.call(gone, sync, echo="x").text == "x"
        assert until(lambda: len(nodes(fleet)) == 3)
        with concurrent.futures.ThreadPoolExecutor() as threads:
            running = threads.submit(fleet.call, gone, sync, sleep_ms=8000, echo="finished")
            assert until(lambda: gone.http.get("/stats").json()["Running"] == 1)
            name = (gone.data / "node-id").read_text().strip()
            done = Cli(fleet.api.url, tmp_path).run("nodes", "drain", name)
            assert (done.returncode, f"node {name}" in done.stdout) == (0, True), done.stderr
            assert until(lambda: gone.http.get("/readyz").status_code == 503)
            assert running.result().text == "finished"
        answers = [gone.http.post(later, json={"echo": "x"}) for _ in range(5)]
        assert {fleet.api.ended(answer)["status"] for answer in answers} == {"success"}
        assert gone.http.get("/stats").json()["FunctionStatsMap"].get("/later", {"Complete": 0})["Complete"] == 0
        assert stays.http.get("/stats").json()["FunctionStatsMap"]["/later"]["Complete"] == 5
        assert fleet.call(gone, sync, echo="still").text == "still", "until the balancer has seen it"
        assert until(lambda: nodes(fleet)[gone.data.name]["state"] == "draining")
        assert fleet.api.http.post("/v1/nodes/none/drain").status_code == 404
        gone.stop()
        fleet.start(gone.data.name, FN_NODE_TYPE="runner", FN_RUNNER_API_URL=fleet.api.url)
        assert until(lambda: nodes(fleet)[gone.data.name]["state"] == "ready"), "it was started again"


def test_a_call_is_cancelled_where_it_runs(fleet: Fleet) -> None:
    path = fleet.api.route("cancelled", "http", type="async", timeout=60, retry={"attempts": 3, "backoff_s": 0})
    answer = fleet.runners[0].call(path, sleep_ms=60_000)
    assert until(lambda: fleet.api.record(answer)["status"] == "running")
    cancelled = fleet.api.http.post(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["call"]["status"]) == (200, "cancelled")
    assert until(lambda: all(one.http.get("/stats").json()["Running"] == 0 for one in fleet.runners))
    record = fleet.api.record(answer)
    assert (record["status"], record["attempt"]) == ("cancelled", 1)


def test_a_dead_letter_of_a_runner_has_its_payload_and_runs_again(fleet: Fleet) -> None:
    api = fleet.api
    path = api.route("dies", "http", type="async", dead_letters=True)
    answer = fleet.runners[0].call(path, exit=3)
    assert api.ended(answer)["dead"]
    where = f"/v1/apps/e2e/dead-letters/{answer.headers['fn_call_id']}"
    assert api.http.get(f"{where}/payload").json() == {"exit": 3}
    new = api.http.post(f"{where}/redrive").json()["call_id"]
    assert until(lambda: api.http.get(f"/v1/apps/e2e/dead-letters/{new}").status_code == 200), "it fails again"
    assert api.http.get(where).status_code == 404


def test_a_runner_sends_the_record_of_a_call_to_its_destination(fleet: Fleet) -> None:
    api = fleet.api.http
    with receiving() as receiver:
        path = fleet.api.route("tells", "http", type="async", on_success=f"{receiver.url}/good")
        assert api.put("/v1/apps/e2e/secrets/CALLBACK_KEY", json={"value": KEY}).status_code == 200
        receiver.fails = 1
        answer = fleet.runners[0].call(path, echo="done")
        where = f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}-callback"
        assert until(lambda: api.get(where).json().get("call", {}).get("status") == "success")
        assert [body["result"]["body"] for body in receiver.of("/good")] == ["done", "done"]
        assert api.get(where).json()["call"]["attempt"] == 2


def test_an_api_node_makes_the_calls_of_schedules_and_runners_run_them(fleet: Fleet) -> None:
    api = fleet.api.http
    fleet.api.route("tick", "json", config={"A": "b"})
    fields = {"route": "/tick", "every": "1s", "payload": json.dumps({"tell": True}), "headers": {"X-Of": "schedule"}}
    made = api.put("/v1/apps/e2e/schedules/ticks", json={"schedule": fields})
    assert (made.status_code, len(made.json()["schedule"]["next"])) == (200, 5)

    def ended() -> list[dict[str, Any]]:
        listed = api.get("/v1/apps/e2e/calls", params={"path": "/tick", "status": "success"}).json()["calls"]
        return [call for call in listed if call["origin"] == "schedule ticks"]

    assert until(lambda: len(ended()) >= 2)
    assert api.delete("/v1/apps/e2e/schedules/ticks").status_code == 200
    due = set()
    for call in (calls := ended()):
        log = api.get(f"/v1/apps/e2e/calls/{call['id']}/log", headers={"accept": "text/plain"}).text
        headers = {name.lower(): values for name, values in json.loads(json.loads(log)["body"])["headers"].items()}
        assert (headers["x-of"], headers["fn-schedule"]) == (["schedule"], ["ticks"])
        due.add(headers["fn-schedule-time"][0])
    assert len(due) == len(calls)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_key_is_one_call_on_any_number_of_nodes(fleet: Fleet, kind: str) -> None:
    path = fleet.api.route(f"once-{kind}", "http", type=kind)

    def repeat(number: int) -> httpx.Response:
        headers = {"Idempotency-Key": "key"}
        return fleet.runners[number % 2].http.post(path, json={"tell": True, "sleep_ms": 100}, headers=headers)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(repeat, range(8)))
    assert {answer.status_code for answer in answers} == {200 if kind == "sync" else 202}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["fn_call_id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replay") for answer in answers].count(None) == 1
    if kind == "async":
        fleet.api.ended(answers[0])
    found = fleet.api.http.get("/v1/apps/e2e/calls", params={"path": f"/once-{kind}"}).json()["calls"]
    assert [one["id"] for one in found] == [answers[0].headers["fn_call_id"]]


def test_fns_reach_runners_as_routes_do(fleet: Fleet) -> None:
    api, runner = fleet.api.http, fleet.runners[0].http

    def made(kind: str, **body: Any) -> str:
        answer = api.post(f"/v2/{kind}", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    app_id = made("apps", name="fns", config={"A": "b"})
    fn_id = made("fns", app_id=app_id, name="f", image=fleet.api.image)
    made("triggers", app_id=app_id, fn_id=fn_id, name="t", type="http", source="/a b")
    told = runner.post(f"/invoke/{fn_id}", json={"tell": True})
    assert (told.status_code, told.json()["env"]["A"]) == (200, "b")
    do = urllib.parse.quote(json.dumps({"echo": "x", "status": 201}))
    triggered = runner.get(f"/t/fns/a%20b?do={do}")
    assert (triggered.status_code, triggered.text) == (201, "x")
    detached = runner.post(f"/invoke/{fn_id}", json={"echo": "x"}, headers={"Fn-Invoke-Type": "detached"})
    assert detached.status_code == 202

    def status(call: httpx.Response) -> str:
        return str(api.get(f"/v2/fns/{fn_id}/calls/{call.headers['fn-call-id']}").json()["status"])

    assert (status(told), status(triggered)) == ("success", "success")
    assert until(lambda: status(detached) == "success")
    for path, text in (("/invoke/none", "Fn"), ("/t/none/x", "App"), ("/t/fns/x", "Trigger")):
        unknown = runner.post(path)
        assert (unknown.status_code, unknown.json()) == (404, {"message": f"{text} not found"})
    assert api.post(f"/invoke/{fn_id}").status_code == 400
    assert runner.get("/v2/apps").json() == {"message": NO_API}


def test_a_failing_async_call_is_recorded(fleet: Fleet) -> None:
    path = fleet.api.route("any-missing", "http", type="async", image="localhost:1/none:1")
    call = fleet.api.ended(fleet.runners[0].http.post(path))
    assert call["status"] == "error"
    assert call["error"].startswith("Failed to pull image 'localhost:1/none:1': ")


def test_the_status_of_an_answer_and_why_a_call_failed_reach_the_record(fleet: Fleet) -> None:
    path = fleet.api.route("status", "http", timeout=1)
    later = fleet.api.route("status-later", "json", type="async")
    fine, broken = (fleet.call(fleet.runners[0], path, status=status) for status in (201, 503))
    slow = fleet.call(fleet.runners[0], path, sleep_ms=30_000)
    accepted = fleet.runners[0].http.post(later, json={"status": 500})
    assert (broken.status_code, slow.status_code) == (503, 504)
    assert slow.json() == {"error": {"message": "Timed out"}}
    fleet.api.ended(accepted)
    told = ("status", "error", "response_status")
    assert [[fleet.api.record(answer).get(name) for name in told] for answer in (fine, broken, slow, accepted)] == [
        ["success", None, 201],
        ["error", "function answered 503", 503],
        ["timeout", "timed out after 1 s (timeout of the route)", 504],
        ["error", "function answered 500", 500],
    ]


def test_an_app_that_is_created_again_shows_no_call_of_its_predecessor(fleet: Fleet) -> None:
    route = {"route": {"image": fleet.image, "format": "http"}}
    api, runner = fleet.api.http, fleet.runners[1]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert api.put("/v1/apps/again/routes/f", json=route).status_code == 200
        running = pool.submit(runner.http.post, "/r/again/f", json={"sleep_ms": 3000, "say": "secret"})
        assert until(lambda: runner.http.get("/stats").json()["Running"] == 1)
        assert api.delete("/v1/apps/again").status_code == 200
        assert api.put("/v1/apps/again/routes/f", json=route).status_code == 200
        assert not running.done()
        call_id = running.result().headers["fn_call_id"]
    assert api.get("/v1/apps/again/calls").json()["calls"] == []
    assert api.get(f"/v1/apps/again/calls/{call_id}").status_code == 404
    assert api.get(f"/v1/apps/again/calls/{call_id}/log").status_code == 404


def test_bytes_survive_the_hops(fleet: Fleet) -> None:
    path = fleet.api.route("bytes", "default", type="async")
    answer = fleet.runners[0].http.post(path, content=b"\x80binary\xff")
    assert fleet.api.ended(answer)["status"] == "success"
    log = fleet.api.http.get(f"/v1/apps/e2e/calls/{answer.json()['call_id']}/log", headers={"accept": "text/plain"})
    assert log.content == b"\x80binary\xff"


def test_many_first_calls_load_a_route_once(fleet: Fleet) -> None:
    path = fleet.api.route("first", "http")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: fleet.call(fleet.runners[0], path, echo=str(n)), range(32)))
    assert [answer.text for answer in answers] == [str(n) for n in range(32)]


def test_a_changed_route_is_seen_after_a_while(fleet: Fleet) -> None:
    path = fleet.api.route("changes", "json", config={"V": "1"})
    runner = fleet.runners[0]
    assert fleet.call(runner, path, tell=True).json()["env"]["V"] == "1"
    fleet.api.route("changes", "json", config={"V": "2"})
    assert until(lambda: fleet.call(runner, path, tell=True).json()["env"]["V"] == "2")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A full node, which has an address that is not for it, and a runner; with a secret, and a limit on requests."""
    environment: dict[str, Any] = {
        "FN_RUNNER_TOKEN": "s3cret",
        "FN_MAX_REQUEST_SIZE": "1000",
        "FN_RUNNER_API_URL": "http://192.0.2.1",
    }
    with running_fleet(tmp_path_factory.mktemp("guarded"), kind="full", **environment) as running:
        yield running


def test_full_nodes_and_runners_share_a_queue(guarded: Fleet) -> None:
    nodes = (guarded.api, guarded.runners[0])
    path = guarded.api.route("later", "http", type="async")
    answers = [node.http.post(path, json={"echo": "x"}) for node in nodes for _ in range(10)]
    assert {guarded.api.ended(answer)["status"] for answer in answers} == {"success"}
    sync = guarded.api.route("sync", "http")
    assert {node.http.post(sync, json={"echo": "x"}).text for node in nodes} == {"x"}
    assert "FN_RUNNER_API_URL is ignored" in (guarded.api.data / "server.log").read_text()


def test_a_runner_with_another_secret_is_not_ready(guarded: Fleet) -> None:
    stranger = guarded.start_runner("stranger", FN_RUNNER_TOKEN="wrong")
    ready = stranger.http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    sync, later = guarded.api.route("sync", "http"), guarded.api.route("later", "http", type="async")
    assert stranger.http.post(sync, json={"echo": "x"}).status_code == 200, "its record waits for the secret"
    assert stranger.http.post(later, json={"echo": "x"}).status_code == 401


def test_a_limit_on_requests_does_not_cost_the_logs_of_runners(guarded: Fleet) -> None:
    answer = guarded.call(guarded.runners[0], guarded.api.route("talks", "http"), echo="x", say="y" * 900)
    assert guarded.api.record(answer)["status"] == "success"
    assert guarded.api.http.post("/v1/apps", content=b"x" * 1001).status_code == 413
    strange = guarded.api.http.post("/v1/runner/finish", content=b"x" * 1001)
    assert strange.status_code == 401


def test_a_runner_that_stops_gives_back_what_it_has_not_started_and_polls_hold_up_no_end(tmp_path: Path) -> None:
    image = build_bundle(tmp_path / "shared", tmp_path / "witness", WITNESS)
    with (
        watching() as witness,
        running_fleet(tmp_path, FN_MAX_TOTAL_MEMORY=str(1000 << 20)) as fleet,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        config = {"WITNESS": witness.address}
        path = fleet.api.route("slow", "http", type="async", image=image, config=config, memory=600, timeout=60)
        witness.go.clear()
        first, *waiting = [fleet.runners[0].http.post(path, content=b"0") for _ in range(6)]
        assert until(lambda: fleet.api.record(first)["status"] == "running")
        stopped = pool.submit(fleet.runners[0].stop)
        assert until(lambda: not listens(fleet.runners[0]))
        witness.go.set()
        assert stopped.result() == 0
        assert fleet.api.record(first)["status"] == "success"
        other = fleet.start_runner("other")
        assert {fleet.api.ended(answer)["status"] for answer in waiting} == {"success"}
        begun = time.monotonic()
        assert other.stop() == 0
        assert time.monotonic() - begun < POLL_S, "a poll that waits does not hold it up"
        with RawClient(fleet.api.url) as polling:
            polling.send(
                f"GET /v1/runner/async HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {RUNNER_TOKEN}\r\n\r\n"
            )
            assert fleet.api.http.get("/version").status_code == 200  # which comes later
            begun = time.monotonic()
            assert fleet.api.stop() == 0, "nor an API node"
            assert time.monotonic() - begun < POLL_S


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"db_url": ""}, "Full nodes must configure FN_DB_URL, FN_LOG_URL, FN_MQ_URL."),
        ({"mq_url": "", "node_type": "Runner"}, "Full nodes must configure FN_DB_URL, FN_LOG_URL, FN_MQ_URL."),
        ({"mq_url": "", "node_type": "api"}, "Api nodes must configure FN_DB_URL, FN_LOG_URL, FN_MQ_URL."),
        ({"node_type": "runner"}, "No agent started for a runner node, add FN_RUNNER_API_URL to configuration."),
    ],
)
async def test_what_keeps_a_node_from_starting(tmp_path: Path, given: dict[str, str], text: str) -> None:
    with pytest.raises(StartUpError) as raised:
        async with open_node(settings.load(data_dir=tmp_path, driver="process", **given), 8080):
            pass
    assert text in str(raised.value)


def test_a_start_that_fails_says_why_and_no_password(tmp_path: Path) -> None:
    environment = {"FN_NODE_TYPE": "runner", "FN_RUNNER_API_URL": "http://user:s3cret@/x"}
    variables = {**os.environ, "FN_DATA_DIR": str(tmp_path), "FN_PORT": "0", "FN_DRIVER": "process", **environment}
    done = subprocess.run([HEARTH, "start"], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "FN_RUNNER_API_URL=http://***@/x: no host specified for client" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
