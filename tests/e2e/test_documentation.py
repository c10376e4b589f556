"""The tutorial is followed to the letter; the examples pass their own tests."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.kits import NPM, program
from tests.support.node import HEARTH

ROOT = Path(__file__).parents[2]
PROMISED = ['{"message": "Hello Ada"}', "2 passed, 0 failed, 0 skipped"]
PROMISED_BY_NODE = ['{"message":"Hello Ada"}', '{"message":"Hello Grace"}', "1 passed, 0 failed, 0 skipped"]


def follow(name: str, home: Path, promised: list[str], then: str = "", **more: str) -> str:
    """Type what a page says, and ``then`` more; what that prints. The page promises parts of it."""
    page = (ROOT / "docs" / name).read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    assert "localhost:8080" in script
    environment = {
        **os.environ,
        "PATH": f"{HEARTH.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "FN_PORT": port,
        "FN_API_URL": f"http://localhost:{port}",
        **more,
    }
    typed = "set -m\n" + script.replace("localhost:8080", f"localhost:{port}") + then
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", typed],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in promised:
        assert text in page
        assert text in done.stdout
    return done.stdout


@pytest.mark.parametrize("mode", ["required", "off"])
def test_the_tutorial_works_as_it_is_written_in_each_mode(tmp_path: Path, mode: str) -> None:
    """The command finds the token by itself; the other tutorial shows the mode of a node that is told nothing."""
    printed = follow("tutorial.md", tmp_path, PROMISED, FN_AUTH=mode)
    assert printed.count('{"message": "Hello Ada"}') == 2
    assert printed.count("greeting Ada\n") == 1
    assert re.search(r"/greet .* success", printed)
    assert '{"message": "Good day World"}' in printed


def test_the_home_page_leads_to_an_answer(tmp_path: Path) -> None:
    """The last node of the page is stopped here: a reader goes on with it."""
    assert '{"message": "Hello Ada"}' in follow("index.md", tmp_path, PROMISED[:1], then="kill %1\nwait")


def test_the_tutorial_of_a_node_function_works_as_it_is_written(tmp_path: Path) -> None:
    program("node", "nodejs")
    program("npm", "npm")
    printed = follow("tutorial-node.md", tmp_path, PROMISED_BY_NODE, **NPM)
    assert printed.count('{"message":"Hello Ada"}') == 2
    assert printed.count("greeting Grace\n") == 1
    assert len(re.findall(r"/greet .* success", printed)) == 2
    for number in range(1, 9):
        assert f'{{"message":"Hello {number}"}}' in printed


@pytest.mark.parametrize("name", ["hello", "shout", "stdio"])
def test_an_example_passes_its_tests(name: str, tmp_path: Path) -> None:
    done = Cli("", tmp_path).run("test", ROOT / "examples" / name)
    assert done.returncode == 0, done.stdout + done.stderr
