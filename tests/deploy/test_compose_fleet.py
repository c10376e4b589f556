"""The shipped Compose file, up for real: the fleet serves, goes on after it has lost a runner, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.compose import SECRETS, Project, project
from tests.support.containers import docker, wait_until
from tests.support.docker_images import python_image
from tests.support.node import MULTI

#: All but Grafana: Debian has no package of it.
SERVICES = ("api", "runner-1", "runner-2", "lb", "db", "redis", "s3", "prometheus")


@pytest.fixture
def fleet(image: str, tmp_path: Path) -> Iterator[Project]:
    """All services, ready."""
    fleet = project(f"hearth-test-{os.getpid()}", tmp_path, image)
    try:
        fleet.run("up", "--detach", "--wait", "--no-build", "--pull=never", *SERVICES)
        yield fleet
    finally:
        with contextlib.suppress(AssertionError):
            fleet.run("down", "--volumes", "--timeout=20")


def test_a_fleet_serves_goes_on_without_a_runner_and_leaves_nothing(fleet: Project) -> None:
    nodes = {fleet.run("exec", "-T", name, "cat", "/app/data/node-id").strip() for name in ("runner-1", "runner-2")}
    assert len(nodes) == 2, "they share an Engine, and the path of their data"
    url = f"http://{fleet.run('port', 'lb', '8080').strip().replace('0.0.0.0', '127.0.0.1')}"
    assert httpx.get(f"{url}/v1/apps", timeout=60).status_code == 401
    token = {"Authorization": f"Bearer {SECRETS['FN_ADMIN_TOKEN']}"}
    with httpx.Client(base_url=url, timeout=60, headers=token) as client:
        for path, kind, form in (("f", "sync", "json"), ("a", "async", "json"), ("s", "sync", "http-stream")):
            route = {"image": python_image(MULTI), "format": form, "type": kind}
            client.put(f"/v1/apps/fleet/routes/{path}", json={"route": route}).raise_for_status()
        answer = wait_until(lambda: found(client.post("/r/fleet/f", json={"echo": "hello", "say": "spoken"})))
        assert answer.text == "hello"
        assert wait_until(lambda: found(client.post("/r/fleet/s", json={"echo": "on a socket"}))).text == "on a socket"
        accepted = client.post("/r/fleet/a", json={"echo": "later", "say": "spoken later"})
        assert accepted.status_code == 202
        assert "spoken" in log_of(fleet, client, answer.headers["fn_call_id"])
        assert "spoken later" in log_of(fleet, client, accepted.json()["call_id"])
        callers_and_secrets(client)
        for path in ("/invoke/none", "/t/fleet/none"):  # runners answer; an API node refuses all calls with 400
            assert client.post(path).status_code == 404
        for hidden in ("/v1/runner/async", "/metrics"):
            assert client.get(hidden).status_code == 404
        wait_until(lambda: scraped(fleet) == {"api:8080", "runner-1:8080", "runner-2:8080"})
        stop_under_load(fleet, client, "runner-1")
        assert client.post("/r/fleet/f", json={"echo": "one left"}).text == "one left"
    assert containers_of(nodes), "the one that is left keeps its containers warm"
    fleet.run("down", "--volumes")
    assert not containers_of(nodes)
    of_project = ["--quiet", "--filter", f"label=com.docker.compose.project={fleet.name}"]
    left = [docker(*listed, *of_project) for listed in (("ps", "--all"), ("volume", "ls"), ("network", "ls"))]
    assert left == ["", "", ""]


def callers_and_secrets(client: httpx.Client) -> None:
    """A token that an administrator creates opens the routes of its app on the runners, and no more."""
    asked = {"token": {"name": "front", "role": "invoker", "apps": ["fleet"]}}
    value = client.post("/v1/tokens", json=asked).json()["token"]["value"]
    client.put("/v1/apps/fleet/secrets/KEY", json={"value": "of the app"}).raise_for_status()
    route = {"image": python_image(MULTI), "format": "json", "auth": "token", "secrets": ["KEY"]}
    client.put("/v1/apps/fleet/routes/g", json={"route": route}).raise_for_status()
    tell = {"run": 'orders["echo"] = os.environ["KEY"]'}
    with httpx.Client(base_url=client.base_url, timeout=60) as caller:
        assert wait_until(lambda: found(caller.post("/r/fleet/g", json=tell))).status_code == 401
        caller.headers["Authorization"] = f"Bearer {value}"
        answer = caller.post("/r/fleet/g", json=tell)
        assert (answer.status_code, answer.text) == (200, "of the app")
        assert caller.get("/v1/apps/fleet/secrets").status_code == 403


def found(answer: httpx.Response) -> httpx.Response | None:
    """The balancer finds a runner within a second after it has come, and a runner a new route within five."""
    return None if answer.status_code in (404, 503) else answer


def log_of(fleet: Project, client: httpx.Client, call_id: str) -> str:
    """Of a call, once it has ended well: what the API answers, and the store has."""
    wait_until(lambda: status(client, call_id) == "success")
    assert call_id in fleet.run("exec", "-T", "s3", "ls", "-R", "/data/hearthlogs")
    return client.get(f"/v1/apps/fleet/calls/{call_id}/log", headers={"accept": "text/plain"}).text


def status(client: httpx.Client, call_id: str) -> str:
    answer = client.get(f"/v1/apps/fleet/calls/{call_id}")
    return str(answer.json()["call"]["status"]) if answer.status_code == 200 else ""


def scraped(fleet: Project) -> set[str]:
    """The nodes that Prometheus reads."""
    networks = json.loads(docker("inspect", fleet.run("ps", "--quiet", "prometheus").strip()))[0]["NetworkSettings"]
    (network,) = networks["Networks"].values()
    answer = httpx.get(f"http://{network['IPAddress']}:9090/api/v1/query", params={"query": "up == 1"}, timeout=60)
    return {series["metric"]["instance"] for series in answer.json()["data"]["result"]}


def stop_under_load(fleet: Project, client: httpx.Client, runner: str) -> None:
    """Every call is answered while it stops."""
    with subprocess.Popen([*fleet.command, "stop", runner], env=fleet.environment, stderr=subprocess.DEVNULL) as stop:
        answered = 0
        while stop.poll() is None or answered < 5:
            assert client.post("/r/fleet/f", json={"echo": "still"}).text == "still"
            answered += 1
    assert stop.returncode == 0
    assert runner not in fleet.run("ps", "--services", "--status=running").split()


def containers_of(nodes: set[str]) -> list[str]:
    return [line for node in nodes for line in docker("ps", "-aq", "--filter", f"label=hearth.node={node}").split()]
