"""What a node does where there is no sandbox, and how its operator learns of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.node import HEARTH, build_multi, running_node
from tests.support.scrape import samples

NO_BWRAP = "bubblewrap is not installed"


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH on which everything but bubblewrap is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("nsenter", "setpriv"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


def start(data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FN_DRIVER": "process", "FN_DATA_DIR": str(data), "FN_PORT": "0", **variables}
    return subprocess.run([HEARTH, "start"], env=environment, capture_output=True, text=True, timeout=60)


def test_a_node_that_requires_a_sandbox_does_not_start_without_one(tmp_path: Path, programs: str) -> None:
    done = start(tmp_path / "data", PATH=programs, FN_SANDBOX="required")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"hearth: FN_SANDBOX=required: {NO_BWRAP}; install bubblewrap")
    assert "FN_SANDBOX=preferred" in last


@pytest.mark.skipif(os.geteuid() != 0, reason="the default of root")
def test_root_requires_a_sandbox_unless_told_otherwise(tmp_path: Path, programs: str) -> None:
    assert "FN_SANDBOX=required" in start(tmp_path / "data", PATH=programs).stderr


@pytest.mark.parametrize(("policy", "reason"), [("preferred", NO_BWRAP), ("off", "FN_SANDBOX=off")])
def test_a_node_without_a_sandbox_says_so_everywhere(tmp_path: Path, programs: str, policy: str, reason: str) -> None:
    data = tmp_path / "data"
    image = build_multi(data, tmp_path / "source")
    variables = {"PATH": programs, "FN_SANDBOX": policy}
    with running_node("process", data, image, **variables) as node:
        path = node.route("open", "json")
        assert node.call(path).status_code == 200
        (warning,) = [text for text in node.http.get("/readyz").json()["warnings"] if "sandbox" in text]
        assert reason in warning
        assert "use the network of the machine" in warning
        assert samples(node.http.get("/metrics").text)["hearth_functions_unsandboxed", "", ""] == 1
        assert reason in (data / "server.log").read_text()
        environment = {**os.environ, **variables, "FN_DATA_DIR": str(data), "FN_PORT": "0", "FN_DRIVER": "process"}
        doctor = subprocess.run([HEARTH, "doctor", "-o", "json"], env=environment, capture_output=True, text=True)
        findings = {finding["check"]: finding for finding in json.loads(doctor.stdout)}
        assert findings["sandbox"]["status"] == findings["function network"]["status"] == "warn"
        assert reason in findings["sandbox"]["found"]
        assert "the network of the machine" in findings["function network"]["found"]


@pytest.mark.parametrize("network", ["none", "internet"])
def test_a_network_that_only_a_sandbox_can_make_stops_a_start_without_one(
    tmp_path: Path, programs: str, network: str
) -> None:
    done = start(tmp_path / "data", PATH=programs, FN_SANDBOX="preferred", FN_FUNCTION_NETWORK=network)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"hearth: FN_FUNCTION_NETWORK={network}: functions that run without a sandbox use the network"
    )
    assert last.endswith("set it to host")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_node_with_a_sandbox_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_node("process", data, build_multi(data, tmp_path / "source")) as node:
        assert samples(node.http.get("/metrics").text)["hearth_functions_unsandboxed", "", ""] == 0
        assert not [text for text in node.http.get("/readyz").json().get("warnings", []) if "sandbox" in text]


@pytest.mark.parametrize("value", ["0-10", "5000-4000", "500", "70000", "a-b", "1000-4294967295"])
def test_a_range_of_users_that_cannot_be_is_refused(tmp_path: Path, value: str) -> None:
    done = start(tmp_path / "data", FN_FUNCTION_UIDS=value)
    assert done.returncode == 1
    assert done.stderr.startswith(f"hearth: FN_FUNCTION_UIDS={value!r}: Input should be")
