"""A node's data may lie in a folder of any name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.node import HEARTH, url_of
from tests.support.processes import spawn

from hearth.settings import environment


@pytest.mark.parametrize(
    "name", ["проект".encode(), b"line\nbreak", b"not\xffutf8", b"what?", b"what?a=b", b"a#b%20 c"]
)
def test_a_node_starts_deploys_and_serves_in_a_folder_of_any_name(tmp_path: Path, name: bytes) -> None:
    project = tmp_path / os.fsdecode(name)
    project.mkdir()
    variables = {key: value for key, value in environment().items() if not key.startswith("FN_")}
    node = spawn(
        [HEARTH, "start"],
        cwd=project,
        env={**variables, "FN_PORT": "0", "FN_DRIVER": "process"},
        stdout=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )
    try:
        url = url_of(node)
        version = httpx.get(f"{url}/version", timeout=60)
        assert (version.status_code, version.headers["hearth-driver"]) == (200, "process")
        assert httpx.get(f"{url}/readyz", timeout=60).json()["ready"] is True
        cli = Cli(url, tmp_path)
        cli("init", "f", cwd=tmp_path)
        cli("deploy", "--app", "a", cwd=tmp_path / "f")
        assert cli("invoke", "a", "/f") == '{"message": "Hello World"}'
    finally:
        node.terminate()
        assert node.wait(60) == 0
        assert node.stdout is not None
        node.stdout.close()
    assert {"fn.db", "fn.mq", "bundles", "hearth.lock"} <= {path.name for path in (project / "data").iterdir()}


def test_a_folder_in_which_no_function_could_run_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "a:b"
    variables = environment(FN_PORT="0", FN_DRIVER="process", FN_DATA_DIR=str(data))
    done = subprocess.run([HEARTH, "start"], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"hearth: FN_DATA_DIR={data}: functions as processes cannot run below a folder with a colon" in done.stderr
