"""The compose file and the balancer's are well formed, and say what a fleet relies on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.support.compose import DEPLOY, SECRETS, Project
from tests.support.machine_image import servers_image
from tests.support.tls import Authority

TOKENS = ("FN_ADMIN_TOKEN", "FN_RUNNER_TOKEN")


def test_the_file_is_well_formed_and_asks_for_each_secret() -> None:
    group = {"DOCKER_GID": "999"}
    config = json.loads(Project("t", [DEPLOY / "compose.yaml"], {**SECRETS, **group}).run("config", "--format=json"))
    services = config["services"]
    assert {"api", "runner-1", "runner-2", "lb", "db", "redis", "s3", "prometheus", "grafana"} == set(services)
    for name in ("api", "runner-1", "runner-2"):
        told = services[name]["environment"]
        assert told["FN_AUTH"] == "required"
        assert "init" not in services[name], "a node reaps what functions leave behind"
        assert {token: told[token] for token in TOKENS} == {token: SECRETS[token] for token in TOKENS}
    mounted = [
        volume["source"]
        for name in ("runner-1", "runner-2")
        for volume in services[name]["volumes"]
        if volume["target"] == "/app/data"
    ]
    assert mounted == ["runner-1", "runner-2"], "with one data folder they would be one node"
    offered = {line.partition("=")[0] for line in (DEPLOY / ".env.example").read_text().splitlines() if "=" in line}
    assert {*SECRETS, *group} <= offered
    for missing in SECRETS:
        given = {name: value for name, value in {**SECRETS, **group}.items() if name != missing}
        with pytest.raises(AssertionError, match=missing):
            Project("t", [DEPLOY / "compose.yaml"], {**given, missing: ""}).run("config")


def test_the_balancer_outlasts_calls_and_never_repeats_one(docker: None) -> None:
    config = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    assert "retry-on conn-failure\n" in config
    hosts = ["--add-host=api:127.0.0.1", "--add-host=runner-1:127.0.0.1", "--add-host=runner-2:127.0.0.1"]
    command = ["docker", "run", "--rm", *hosts, "-v", f"{DEPLOY}/haproxy:/etc/hap:ro", servers_image()]
    checked = subprocess.run([*command, "haproxy", "-c", "-f", "/etc/hap/haproxy.cfg"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr


def test_the_line_of_the_page_gives_the_balancer_a_certificate(docker: None, tmp_path: Path) -> None:
    page = (DEPLOY.parent / "docs" / "howto" / "tls.md").read_text()
    line = page.partition("```haproxy\n")[2].partition("```")[0].strip()
    config = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    assert config.count("bind :8080\n") == 1
    cert, key = Authority(tmp_path).issue("balancer", "functions.example")
    (tmp_path / "tls.pem").write_bytes(cert.read_bytes() + key.read_bytes())
    (tmp_path / "haproxy.cfg").write_text(config.replace("bind :8080\n", f"{line}\n"))
    hosts = ["--add-host=api:127.0.0.1", "--add-host=runner-1:127.0.0.1", "--add-host=runner-2:127.0.0.1"]
    command = ["docker", "run", "--rm", *hosts, "-v", f"{tmp_path}:/usr/local/etc/haproxy:ro", servers_image()]
    command += ["haproxy", "-c", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr
