"""hearth init: a function that answers in each language, or a func.yaml for code that exists."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.base_image import base_image
from tests.support.cli import Cli
from tests.support.node import HEARTH

GREETED = {"message": "Hello Ada"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli("", tmp_path / "home", DOCKER_BUILDKIT="0")


def hearth(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a process: build commands write to its own stderr."""
    return subprocess.run([HEARTH, *arguments], input=stdin, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("runtime", ["python", "node", "go", "shell"])
def test_a_new_function_is_built_called_and_tested(runtime: str, cli: Cli, tmp_path: Path) -> None:
    program = {"python": "python3", "shell": "sh"}.get(runtime, runtime)
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    folder = tmp_path / "new"
    created = cli("init", folder, "--runtime", runtime)
    assert all(file.name in created for file in folder.iterdir())
    assert hearth("test", folder).stdout.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"
    called = hearth("run", folder, stdin="Ada" if runtime == "shell" else '{"name": "Ada"}')
    assert called.returncode == 0, called.stderr
    assert called.stdout == "Hello Ada" if runtime == "shell" else json.loads(called.stdout) == GREETED
    assert "greeting Ada" in called.stderr


def test_a_new_image_is_built_called_and_tested(docker: None, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    cli("init", folder, "--runtime", "docker", "--name", "hearth-test/new-image")
    recipe = (folder / "Dockerfile").read_text()
    assert recipe.startswith("FROM debian:stable-slim\n")  # no registry answers here
    shutil.copy("/usr/bin/tr", folder / "tr")
    here = f"FROM {base_image()}\nCOPY tr /usr/bin/tr\n"
    (folder / "Dockerfile").write_text(recipe.replace("FROM debian:stable-slim\n", here))
    assert cli("test", folder).splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert cli("run", folder, stdin="ada") == "ADA"


HANDLER = "from hearth_fdk import function\n\n@function\ndef handle(body: bytes) -> bytes:\n    return body\n"
SERVER = "// listens on FN_LISTENER\n"


@pytest.mark.parametrize(
    ("files", "fields"),
    [
        ({"func.py": HANDLER}, ["runtime: python", "format: http-stream"]),
        ({"app.py": HANDLER, "test_app.py": ""}, ["runtime: python", "format: http-stream", 'cmd: ["app.py"]']),
        ({"app.py": "print(1)\n", "words.py": ""}, ["runtime: python", 'cmd: [python3, "app.py"]']),
        ({"func.js": SERVER}, ["runtime: exec", "format: http-stream", 'cmd: [node, "func.js"]', "memory: 256"]),
        (
            {"index.js": "1", "lib.js": ""},
            ["runtime: exec", "format: default", 'cmd: [node, "index.js"]', "memory: 256"],
        ),
        (
            {"main.go": "package main", "go.mod": "module x"},
            ["runtime: exec", "format: default", "build: [go build -o func .]", "cmd: [./func]"],
        ),
        ({"shout.sh": "tr a-z A-Z"}, ["runtime: exec", "format: default", 'cmd: [sh, "shout.sh"]']),
        ({"Dockerfile": "FROM scratch", "func.py": "x"}, ["runtime: docker", "format: default"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_code_gets_a_func_yaml_and_nothing_else(
    files: dict[str, str], fields: list[str], force: bool, cli: Cli, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    if force:
        (folder / "func.yaml").write_text("name: old\n")
    cli("init", folder, *(["--force"] if force else []))
    assert (folder / "func.yaml").read_text().splitlines() == ["name: mine", "version: 0.0.1", *fields]
    assert {path.name: path.read_text() for path in folder.iterdir() if path.name != "func.yaml"} == files


def test_code_that_exists_answers_after_init(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "shout.sh").write_text("tr a-z A-Z")
    cli("init", tmp_path)
    assert cli("run", tmp_path, stdin="hello") == "HELLO"


def test_several_programs_are_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "one.py").touch()
    (tmp_path / "two.py").touch()
    assert "which is the function: one.py, two.py? Rename it to func.py" in cli.fails(1, "init", tmp_path)
    assert not (tmp_path / "func.yaml").exists()


def test_files_beside_a_new_function_stay(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "test.yaml").write_text("tests: [{name: mine}]\n")
    (tmp_path / "README.md").write_text("mine")
    assert "test.yaml" not in cli("init", tmp_path)
    assert (tmp_path / "test.yaml").read_text() == "tests: [{name: mine}]\n"
    assert "already exists; --force overwrites it" in cli.fails(1, "init", tmp_path)
