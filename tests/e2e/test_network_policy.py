"""The network of functions where a node cannot keep them apart, and how its operator and authors learn of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.node import HEARTH, build_multi, running_node

TOKEN = "an-operator"
SENTENCE = "install slirp4netns and iproute2"


def without_slirp4netns(*command: str | Path) -> Sequence[str | Path]:
    """A command as it runs on a machine without the program, and without a choice of the operator."""
    if os.geteuid() != 0 or None in (shutil.which("slirp4netns"), shutil.which("bwrap")):
        pytest.skip("hiding slirp4netns needs root")
    hide = f'mount --bind /dev/null {shutil.which("slirp4netns")}; unset FN_FUNCTION_NETWORK; exec "$@"'
    return ("unshare", "--mount", "/bin/sh", "-ec", hide, "without", *command)


@pytest.mark.parametrize(("auth", "network"), [("loopback", "none"), ("required", "host")])
def test_a_node_without_a_tool_for_networks_says_what_functions_get(tmp_path: Path, auth: str, network: str) -> None:
    """Tokens keep functions from the control API where nothing else does, so there they may have the machine's."""
    data = tmp_path / "data"
    data.mkdir()
    variables = {"FN_AUTH": auth, "FN_ADMIN_TOKEN": TOKEN}
    expected = f"FN_FUNCTION_NETWORK={network} is used"
    start = without_slirp4netns(HEARTH, "start")
    with running_node("process", data, build_multi(data, tmp_path / "source"), start, **variables) as node:
        node.http.headers["Authorization"] = f"Bearer {TOKEN}"
        (warning,) = [text for text in node.http.get("/readyz").json()["warnings"] if "NETWORK" in text]
        assert warning.startswith(expected)
        assert SENTENCE in warning
        assert expected in (data / "server.log").read_text()
        project = tmp_path / "greet"
        cli = Cli(node.url, tmp_path, FN_TOKEN=TOKEN)
        cli("init", "--runtime", "python", project)
        deployed = cli.run("deploy", "--app", "a", cwd=project)
        assert deployed.returncode == 0, deployed.stderr
        assert f"this server says: {warning}" in deployed.stderr
        environment = {**os.environ, **variables, "FN_DATA_DIR": str(data), "FN_PORT": "0", "FN_DRIVER": "process"}
        doctor = subprocess.run(
            without_slirp4netns(HEARTH, "doctor", "-o", "json"), env=environment, capture_output=True, text=True
        )
        finding = {found["check"]: found for found in json.loads(doctor.stdout)}["function network"]
        assert finding["status"] == "warn"
        assert finding["found"].startswith(expected)
        assert SENTENCE in finding["advice"]


def test_a_deploy_says_nothing_of_networks_where_functions_have_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_node("process", data, build_multi(data, tmp_path / "source")) as node:
        project = tmp_path / "greet"
        cli = Cli(node.url, tmp_path)
        cli("init", "--runtime", "python", project)
        assert "this server says" not in cli.run("deploy", "--app", "a", cwd=project).stderr
