"""From an empty folder to an answer, by command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, running_node


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node of processes."""
    data = tmp_path_factory.mktemp("deploy-node")
    with running_node("process", data, "") as node:
        yield node


@pytest.fixture
def cli(server: RunningNode, tmp_path: Path) -> Cli:
    """The command, meaning that node."""
    return Cli(server.url, tmp_path / "home")


def test_four_commands_lead_from_an_empty_folder_to_an_answer(cli: Cli, tmp_path: Path) -> None:
    cli("init", "f", cwd=tmp_path)
    folder = tmp_path / "f"
    assert "at " in cli("deploy", "--app", "four", cwd=folder)
    assert json.loads(cli("invoke", "four", "/f", cwd=folder)) == {"message": "Hello World"}
    assert json.loads(cli("invoke", "four", "/f", stdin='{"name": "Ada"}')) == {"message": "Hello Ada"}


def test_a_deploy_raises_the_version_and_runs_the_new_code(cli: Cli, tmp_path: Path) -> None:
    cli("init", "again", cwd=tmp_path)
    file, code = tmp_path / "again" / "func.yaml", tmp_path / "again" / "func.py"
    file.write_text("# mine\n" + file.read_text() + "headers: {X-A: b}  # kept\ntimeout: 9\nconfig: {K: v}\n")
    cli("deploy", "--app", "twice", "-w", tmp_path / "again")
    assert "# kept" in file.read_text()
    assert "version: 0.0.2\n" in file.read_text()
    route = cli.json("inspect", "route", "twice", "/again")
    assert (route["image"], route["timeout"], route["headers"]) == ("again:0.0.2", 9, {"X-A": ["b"]})
    code.write_text(code.read_text().replace("Hello", "Bye"))
    cli("deploy", "--app", "twice", "--no-bump", "-w", tmp_path / "again")
    assert "version: 0.0.2\n" in file.read_text()
    assert json.loads(cli("invoke", "twice", "/again")) == {"message": "Bye World"}
    assert cli("bump", tmp_path / "again") == "Bumped to version 0.0.3\n"


def test_all_functions_of_an_app(cli: Cli, tmp_path: Path) -> None:
    cli("init", "--runtime", "exec", "--name", "root", ".", cwd=_folder(tmp_path / "shop"))
    cli("init", "--runtime", "exec", tmp_path / "shop" / "below" / "shout")
    (tmp_path / "shop" / "app.yaml").write_text("name: whole\nconfig: {A: '1'}\n")
    cli("deploy", "--all", cwd=tmp_path / "shop")
    assert [route["path"] for route in cli.json("list", "route", "whole", "-o", "json")] == ["/", "/shout"]
    assert cli("apps", "config", "get", "whole", "A") == "1\n"
    assert cli("invoke", "whole", "/shout", stdin="loud") == "LOUD"
    assert cli("invoke", "whole", stdin="root") == "ROOT"


def test_an_invocation_sends_the_content_type_of_the_functions_file(
    cli: Cli, server: RunningNode, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "typed")
    (folder / "func.yaml").write_text("runtime: exec\ncmd: [env]\ncontent_type: text/x-note\n")
    cli("deploy", "--app", "types", cwd=folder)
    assert "Content-Type=text/x-note" in cli("invoke", "types", "/typed", cwd=folder, stdin="x")


def test_what_keeps_a_deploy_from_going_on_is_said(cli: Cli, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "wrong")
    assert "func.yaml: not found" in cli.fails(1, "deploy", "--app", "w", cwd=folder)
    cli("init", "--runtime", "exec", cwd=folder)
    assert "no app; give --app NAME" in cli.fails(1, "deploy", cwd=folder)
    assert "does not exist" in cli.fails(1, "deploy", "--app", "w", "--no-create-app", cwd=folder)
    assert "already exists" in cli.fails(1, "init", "--runtime", "exec", cwd=folder)
    file = folder / "func.yaml"
    before = file.read_text()
    file.write_text(before + "expects: {config: [{name: KEY, required: true}]}\n")
    assert "hearth config app w KEY VALUE sets it" in cli.fails(1, "deploy", "--app", "w", cwd=folder)
    file.write_text(before + "memory: much\n")
    assert "func.yaml:6: memory" in cli.fails(1, "deploy", "--app", "w", cwd=folder)
    assert file.read_text() == before + "memory: much\n"


def test_where_bundles_are_is_told_only_on_the_same_machine(server: RunningNode) -> None:
    answer = server.http.get("/version")
    assert (answer.text, answer.headers["hearth-driver"]) == ('{"version":"0.3.316"}', "process")
    assert answer.headers["hearth-bundles"] == str(server.data / "bundles")
    forwarded = httpx.get(f"{server.url}/version", headers={"X-Forwarded-For": "203.0.113.9"})
    assert "hearth-bundles" not in forwarded.headers


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_server_with_docker_gets_an_image(docker: None, tmp_path: Path) -> None:
    with running_node("docker", _folder(tmp_path / "data"), "") as node:
        cli = Cli(node.url, tmp_path / "home")
        folder = _folder(tmp_path / "imaged")
        cli("init", "--runtime", "docker", "--name", "hearth-test/imaged", "--format", "http", cwd=folder)
        (folder / "Dockerfile").write_text(f"FROM {python_image(MULTI)}\nENV BUILT=here\n")
        assert "Deployed hearth-test/imaged:0.0.2 at " in cli("deploy", "--app", "d", cwd=folder)
        told = json.loads(cli("invoke", "d", "/imaged", stdin='{"tell": 1}'))
        assert told["env"]["BUILT"] == "here"
        (folder / "func.yaml").write_text("name: imaged\nversion: 1.0.0\nformat: http\n")
        nowhere = ("deploy", "--app", "d", "--no-bump", "--registry", "127.0.0.1:1/me")
        line = cli.fails(1, *nowhere, cwd=folder)
        assert line.startswith("hearth: docker push 127.0.0.1:1/me/imaged:1.0.0: ")
        assert line.endswith("; --local deploys without a push")
        cli(*nowhere, "--local", cwd=folder)
        assert cli("inspect", "route", "d", "/imaged", "image") == "127.0.0.1:1/me/imaged:1.0.0\n"
        assert json.loads(cli("invoke", "d", "/imaged", stdin='{"tell": 1}'))["env"]["BUILT"] == "here"
