"""Options of hearth start come before the FN_* variables."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx
from tests.support.node import HEARTH
from tests.support.servers import free_port


def test_options_of_start_override_the_environment(tmp_path: Path) -> None:
    port = free_port()
    command: list[str | Path] = [HEARTH, "start", "--port", str(port), "--host", "127.0.0.1"]
    command += ["--driver", "process", "--data", tmp_path / "mine"]
    other = {"FN_PORT": "1", "FN_BIND": "192.0.2.1", "FN_DRIVER": "docker", "FN_DATA_DIR": str(tmp_path / "other")}
    with subprocess.Popen(command, env={**os.environ, **other}, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        try:
            said: dict[str, str] = {}
            while "driver" not in said:
                name, _, value = node.stdout.readline().strip().partition(" ")
                said[name] = value.strip()
            assert said["data"] == str(tmp_path / "mine")
            assert said["driver"].startswith("process")
            assert httpx.get(f"http://127.0.0.1:{port}/version").status_code == 200
        finally:
            node.send_signal(signal.SIGINT)
    assert node.returncode == 0
    assert not (tmp_path / "other").exists()
