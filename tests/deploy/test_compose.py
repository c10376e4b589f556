"""The compose file and the balancer's are well formed, and say what a fleet relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.machine_image import machine_image

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
