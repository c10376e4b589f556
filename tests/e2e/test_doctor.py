"""hearth doctor: what works here, and what a start would stumble over."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.node import HEARTH, build_multi, running_node
from tests.support.redis_server import RedisServer

from hearth.host import cgroups
from hearth.nodes.diagnosis import diagnose
from hearth.settings import load

SECRET = "s3cret-w0rd"
NOBODY = "127.0.0.1:1"


def doctor(data: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FN_DATA_DIR": str(data), "FN_PORT": "0", "FN_DRIVER": "process", **variables}
    return subprocess.run([HEARTH, "doctor", *arguments], env=environment, capture_output=True, text=True, timeout=120)


def found(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Its findings by what was looked at."""
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return {finding["check"]: finding for finding in findings}


def test_a_machine_that_has_all_is_well(tmp_path: Path, redis_server: RedisServer) -> None:
    done = doctor(tmp_path / "new", "--output", "json", FN_MQ_URL=redis_server.url("doctor"))
    findings = found(done)
    assert done.returncode == 0, done.stdout
    assert {"disk", "port", "database", "queue", "log store", "process", "sandbox", "memory limit", "clock"} <= {
        *findings
    }
    assert findings["queue"]["found"] == "redis: it answers"
    if shutil.which("bwrap"):
        assert findings["sandbox"]["status"] == "ok"
    assert not (tmp_path / "new").exists()  # it looks, and makes nothing


def test_the_freezer_is_looked_for_where_functions_are_to_be_frozen(tmp_path: Path) -> None:
    assert "freezer" not in found(doctor(tmp_path, "-o", "json"))
    freezer = found(doctor(tmp_path, "-o", "json", FN_FREEZE_IDLE_MSECS="50"))["freezer"]
    assert freezer["status"] in ("ok", "warn")
    assert "freeze idle functions" in freezer["found"]


@pytest.mark.usefixtures("docker")
def test_the_engine_is_told_with_its_version(tmp_path: Path) -> None:
    version = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=True
    )
    done = doctor(tmp_path, "-o", "json", FN_DRIVER="docker")
    assert version.stdout.strip() in found(done)["docker"]["found"]
    assert done.returncode == 0


def test_what_would_stop_a_start_fails_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as held:
        port = str(held.getsockname()[1])
        done = doctor(
            tmp_path,
            FN_PORT=port,
            FN_DB_URL=f"postgres://u:{SECRET}@{NOBODY}/db",
            FN_MQ_URL=f"redis://u:{SECRET}@{NOBODY}/",
            FN_LOGSTORE_URL=f"s3://a:{SECRET}@h",
            FN_DRIVER="docker",
            DOCKER_HOST=f"tcp://{NOBODY}",
            FN_PROT="1",
        )
    assert done.returncode == 1
    lines = {line.split(maxsplit=2)[1]: line for line in done.stdout.splitlines()}
    assert lines["settings"].startswith("warn")
    assert lines["settings"].endswith("; perhaps FN_PORT is meant")
    assert "; choose another port" in lines["port"]
    assert "; start the database, or name another one" in lines["database"]
    assert "; start it first" in lines["queue"]
    assert "must provide bucket name and region" in lines["log"]
    assert "; start Docker, correct DOCKER_HOST, or set FN_DRIVER=process" in lines["docker"]
    assert {line.split()[0] for name, line in lines.items() if name in ("port", "database", "queue", "docker")} == {
        "fail"
    }
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("resources", "statuses"),
    [
        ("", {"memory limit": "warn", "cpu limit": "warn"}),
        ("memory", {"cpu limit": "warn", "process limit": "warn"}),
        ("memory pids cpu", {"cpu limit": "ok", "process limit": "ok"}),
    ],
)
def test_a_limit_without_its_control_group_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: str, statuses: dict[str, str]
) -> None:
    """In an imitation of the trees; the machine of the tests has one kind of them."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    for name in resources.split():
        (mount / name).mkdir()
        for file in ("cgroup.procs", "memory.limit_in_bytes", "cpu.cfs_quota_us"):
            (mount / name / file).touch()
    found = cgroups.find("doctor", mount)
    monkeypatch.setattr(cgroups, "find", lambda node: found)
    monkeypatch.setenv("FN_SANDBOX", "off")
    monkeypatch.setenv("FN_DRIVER", "process")
    findings = asyncio.run(diagnose(load(data_dir=tmp_path, port=0)))
    by_check = {finding.check: finding.status for finding in findings}
    assert {check: by_check[check] for check in statuses} == statuses


def test_without_docker_processes_will_do(tmp_path: Path) -> None:
    done = doctor(tmp_path, "-o", "json", FN_DRIVER="auto", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 0
    assert found(done)["docker"]["status"] == "warn"
    assert found(done)["driver"]["found"].startswith(
        "process: FN_DRIVER=auto, and nothing was deployed here yet; no En"
    )


def test_the_choice_of_the_driver_is_explained(tmp_path: Path) -> None:
    (tmp_path / "driver").write_text("process\n")
    findings = found(doctor(tmp_path, "-o", "json", FN_DRIVER="auto"))
    assert findings["driver"]["found"] == f"process: remembered in {tmp_path}/driver"
    assert "docker" not in findings
    (tmp_path / "driver").write_text("docker\n")
    findings = found(doctor(tmp_path, "-o", "json"))
    assert findings["driver"] == {
        "check": "driver",
        "status": "warn",
        "found": "process: FN_DRIVER=process, but functions here were deployed for docker",
        "advice": "deploy them again, or unset FN_DRIVER",
    }


def test_a_runner_is_told_of_its_api_node(tmp_path: Path) -> None:
    done = doctor(tmp_path, "-o", "json", FN_NODE_TYPE="runner", FN_RUNNER_API_URL=f"http://{NOBODY}")
    assert done.returncode == 1
    assert found(done)["api node"]["status"] == "fail"
    assert "database" not in found(done)


def test_a_node_that_runs_is_not_disturbed(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node:
        path = node.route("warm", "http")
        assert node.call(path, echo="before").text == "before"
        done = doctor(tmp_path, "-o", "json", FN_PORT=node.url.rpartition(":")[2])
        assert done.returncode == 0, done.stdout
        assert "which serves already" in found(done)["port"]["found"]
        assert "Hearth schema" in found(done)["database"]["found"]
        assert node.call(path, echo="after").text == "after"
