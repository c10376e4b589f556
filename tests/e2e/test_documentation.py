"""The tutorial is followed to the letter; the examples pass their own tests."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.node import HEARTH

ROOT = Path(__file__).parents[2]
PROMISED = ['{"message": "Hello Ada"}', "2 passed, 0 failed, 0 skipped"]


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    assert "localhost:8080" in script
    environment = {
        **os.environ,
        "PATH": f"{HEARTH.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "FN_PORT": port,
        "FN_API_URL": f"http://localhost:{port}",
    }
    done = subprocess.run(
        [
            "bash",
            "-e",
            "-u",
            "-o",
            "pipefail",
            "-c",
            "set -m\n" + script.replace("localhost:8080", f"localhost:{port}"),
        ],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in PROMISED:
        assert text in page
        assert text in done.stdout
    assert done.stdout.count('{"message": "Hello Ada"}') == 2
    assert done.stdout.count("greeting Ada\n") == 1
    assert re.search(r"/greet .* success", done.stdout)
    assert '{"message": "Good day World"}' in done.stdout


@pytest.mark.parametrize("name", ["hello", "shout", "stdio"])
def test_an_example_passes_its_tests(name: str, tmp_path: Path) -> None:
    done = Cli("", tmp_path).run("test", ROOT / "examples" / name)
    assert done.returncode == 0, done.stdout + done.stderr
