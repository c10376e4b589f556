"""The compose file is well formed, and the fleet in it serves on after it has lost a runner."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.containers import answers, wait_until
from tests.support.docker_images import python_image
from tests.support.machine_image import machine_image
from tests.support.node import MULTI

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
COMPOSE = Path(sys.executable).with_name("docker-compose")
#: What the fleet cannot do without; S3, Prometheus and Grafana have no images here.
NEEDED = ("db", "redis", "api", "runner-1", "runner-2", "lb")
SECRETS = {
    "POSTGRES_PASSWORD": "p",
    "REDIS_PASSWORD": "r",
    "S3_PASSWORD": "secret-of-s3",
    "GRAFANA_PASSWORD": "g",
    "FN_RUNNER_TOKEN": "token-of-the-fleet",
}
_POSTGRES = """
[ -e /tmp/pg ] || { initdb -D /tmp/pg -U hearth --auth-host=trust >/dev/null; createdb=1; }
echo 'host all all all trust' >>/tmp/pg/pg_hba.conf
[ -z "$$createdb" ] || echo 'create database hearth' | postgres --single -D /tmp/pg postgres >/dev/null
exec postgres -D /tmp/pg -c listen_addresses='*' -c unix_socket_directories=/tmp
"""


class Fleet:
    """The services of the compose file as one project."""

    def __init__(self, name: str, files: list[Path], environment: dict[str, str]) -> None:
        self.command = [str(COMPOSE), "--project-name", name, *[f"--file={file}" for file in files]]
        self.environment = {**os.environ, **environment}

    def compose(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def test_the_file_is_well_formed_and_asks_for_each_secret() -> None:
    group = {"DOCKER_GID": "999"}
    config = json.loads(Fleet("t", [DEPLOY / "compose.yaml"], {**SECRETS, **group}).compose("config", "--format=json"))
    services = config["services"]
    assert {*NEEDED, "s3", "prometheus", "grafana"} == set(services)
    for name in ("api", "runner-1", "runner-2"):
        assert services[name]["environment"]["FN_RUNNER_TOKEN"] == SECRETS["FN_RUNNER_TOKEN"]
    folders = [services[name]["environment"]["FN_DATA_DIR"] for name in ("runner-1", "runner-2")]
    assert len(set(folders)) == 2, "runners of one Engine would take each other's containers for leftovers"
    offered = {line.partition("=")[0] for line in (DEPLOY / ".env.example").read_text().splitlines() if "=" in line}
    assert {*SECRETS, *group} <= offered
    for missing in SECRETS:
        given = {name: value for name, value in {**SECRETS, **group}.items() if name != missing}
        with pytest.raises(AssertionError, match=missing):
            Fleet("t", [DEPLOY / "compose.yaml"], {**given, missing: ""}).compose("config")


def test_the_balancer_outlasts_calls_and_never_repeats_one(docker: None) -> None:
    config = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    assert "retry-on conn-failure\n" in config
    hosts = ["--add-host=api:127.0.0.1", "--add-host=runner-1:127.0.0.1", "--add-host=runner-2:127.0.0.1"]
    command = ["docker", "run", "--rm", *hosts, "-v", f"{DEPLOY}/haproxy:/etc/hap:ro", machine_image()]
    checked = subprocess.run([*command, "haproxy", "-c", "-f", "/etc/hap/haproxy.cfg"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr


@pytest.fixture
def fleet(image: str, tmp_path: Path) -> Iterator[Fleet]:
    """A running fleet of images that were made here."""
    base, name = machine_image(), f"hearth-test-{os.getpid()}"
    haproxy = ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
    services: dict[str, Any] = {
        "db": {"image": base, "user": "999:999", "command": ["sh", "-ec", _POSTGRES]},
        "redis": {"image": base},
        "lb": {"image": base, "command": haproxy},
        "api": {"environment": {"FN_LOGSTORE_URL": ""}},
    }
    for runner in ("runner-1", "runner-2"):  # named apart from those of another run on the same Engine
        data = f"/app/data/{name}-{runner}"
        services[runner] = {"environment": {"FN_DATA_DIR": data, "FN_DRAIN_DELAY_S": "2.5", "FN_GRACE_S": "20"}}
    override = tmp_path / "override.yaml"
    # Of YAML, JSON is a part; the tag takes the dependency on S3 away.
    text = json.dumps({"services": services})
    override.write_text(
        text.replace('"api": {', '"api": {"depends_on": !override {"db": {"condition": "service_healthy"}}, ')
    )
    environment = {
        **SECRETS,
        "HEARTH_IMAGE": image,
        "DOCKER_GID": str(Path("/var/run/docker.sock").stat().st_gid),
        "PORT": "0",
        "RUNNER_MEMORY": str(1 << 30),
    }
    fleet = Fleet(name, [DEPLOY / "compose.yaml", override], environment)
    try:
        fleet.compose("up", "--detach", "--no-build", "--pull=never", *NEEDED)
        yield fleet
    finally:
        with contextlib.suppress(AssertionError):
            fleet.compose("down", "--volumes", "--timeout=20")


def test_a_fleet_serves_and_goes_on_without_a_runner(fleet: Fleet) -> None:
    url = f"http://{fleet.compose('port', 'lb', '8080').strip().replace('0.0.0.0', '127.0.0.1')}"
    wait_until(lambda: answers(url), 90)
    with httpx.Client(base_url=url, timeout=60) as client:
        for path, kind in (("f", "sync"), ("a", "async")):
            route = {"image": python_image(MULTI), "format": "json", "type": kind}
            client.put(f"/v1/apps/fleet/routes/{path}", json={"route": route}).raise_for_status()
        wait_until(lambda: client.post("/r/fleet/f", json={"echo": "hello"}).text == "hello")
        accepted = client.post("/r/fleet/a", json={"echo": "later"})
        assert accepted.status_code == 202
        wait_until(lambda: status(client, accepted.json()["call_id"]) == "success")
        assert client.get("/v1/runner/async").status_code == client.get("/metrics").status_code == 404

        with subprocess.Popen(
            [*fleet.command, "stop", "runner-1"], env=fleet.environment, stderr=subprocess.DEVNULL
        ) as stop:
            answered = 0
            while stop.poll() is None or answered < 5:
                assert client.post("/r/fleet/f", json={"echo": "still"}).text == "still"
                answered += 1
        assert stop.returncode == 0
        assert "runner-1" not in fleet.compose("ps", "--services", "--status=running").split()
        assert client.post("/r/fleet/f", json={"echo": "one left"}).text == "one left"


def status(client: httpx.Client, call_id: str) -> str:
    answer = client.get(f"/v1/apps/fleet/calls/{call_id}")
    return str(answer.json()["call"]["status"]) if answer.status_code == 200 else ""
