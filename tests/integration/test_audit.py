"""The audit of dependencies fails for a flaw, and for nothing else."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_FLAW = {"id": "TEST-1", "summary": "planted", "affected": [], "modified": "2026-01-01T00:00:00Z"}


class _Source(http.server.BaseHTTPRequestHandler):
    """A service that knows one flawed package."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"vulns": [_FLAW]} if asked["package"]["name"] == "flawed" else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def source() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Source) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def audit(lock: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, ROOT / "tools" / "audit.py", lock, *options]
    return subprocess.run(command, capture_output=True, text=True)


def lock(folder: Path, *names: str) -> Path:
    made = folder / "requirements.lock"
    made.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in names))
    return made


def test_a_planted_flaw_fails_the_audit(source: str, tmp_path: Path) -> None:
    done = audit(lock(tmp_path, "sound", "flawed"), "--source", source)
    assert done.returncode == 1
    assert "TEST-1" in done.stderr


def test_dependencies_without_flaw_pass(source: str, tmp_path: Path) -> None:
    done = audit(lock(tmp_path, "sound"), "--source", source)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_source_out_of_reach_is_told_and_fails_only_if_asked(tmp_path: Path) -> None:
    nowhere = ["--source", "http://127.0.0.1:1/v1/query"]
    done = audit(lock(tmp_path, "sound"), *nowhere)
    assert done.returncode == 0
    assert "NOT looked up" in done.stderr
    assert audit(lock(tmp_path, "sound"), *nowhere, "--strict").returncode == 1


def test_the_whole_lock_can_be_looked_up(source: str) -> None:
    done = audit(ROOT / "requirements.lock", "--source", source)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_flaw_in_the_code_fails_the_lint(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text('"""Planted."""\n\nimport subprocess\n\nsubprocess.run("ls", shell=True)\n')
    command: list[str | Path] = [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", planted]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "S602" in done.stdout or "S604" in done.stdout
