"""From an empty folder to an answer, by command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from tests.support.base_image import base_image
from tests.support.cli import Cli
from tests.support.docker_images import broken_image, python_image
from tests.support.node import MULTI, RunningNode, running_node
from tests.support.registry import Registry, open_registry


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
    forwarded = httpx.get(f"{server.url}/version", headers={"X-Forwarded-For": "203.0.113.9"}, timeout=60)
    assert "hearth-bundles" not in forwarded.headers


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_what_is_deployed_is_tested_where_it_is(cli: Cli, tmp_path: Path) -> None:
    cli("init", "afar", cwd=tmp_path)
    folder = tmp_path / "afar"
    cli("deploy", "--app", "remote", cwd=folder)
    with (folder / "test.yaml").open("a") as cases:
        cases.write("  - {name: is configured, config: {A: b}}\n")
    told = cli("test", "--remote", "remote", "/afar", cwd=folder).splitlines()
    assert told[2].startswith("SKIP  is configured (0.000 s) a deployed function keeps its own configuration")
    assert told[3] == "2 passed, 0 failed, 1 skipped"
    (folder / "func.py").write_text("raise SystemExit('what is tested lies elsewhere')")
    cli("test", "--remote", "remote", "/afar", cwd=folder)
    done = cli.run("test", "--remote", "remote", "/none", cwd=folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "0 passed, 2 failed, 1 skipped")
    assert "http://127.0.0.1:1" in cli.fails(
        1, "test", "--remote", "remote", "/afar", cwd=folder, FN_API_URL="http://127.0.0.1:1"
    )


@pytest.fixture(scope="module")
def docked(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command, meaning a node of images."""
    data = tmp_path_factory.mktemp("docked")
    with running_node("docker", data, "") as node:
        yield Cli(node.url, data / "home", DOCKER_BUILDKIT="0")


def test_a_server_with_docker_gets_an_image(docked: Cli, tmp_path: Path) -> None:
    cli, folder = docked, _folder(tmp_path / "imaged")
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


def test_a_program_becomes_an_image(docked: Cli, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "shout")
    (folder / "shout.py").write_text("import sys\nprint(sys.stdin.read().upper(), end='')\n")
    (folder / "func.yaml").write_text(
        f"name: hearth-test/shout\nruntime: exec\nrun_image: {base_image()}\ncmd: [python3, shout.py]\n"
    )
    assert docked("build", "--driver", "docker", cwd=folder) == "built image hearth-test/shout:latest\n"
    docked("deploy", "--app", "exec", "--no-bump", cwd=folder)
    assert docked("invoke", "exec", "/shout", stdin="loud") == "LOUD"


async def test_an_image_is_pushed_to_its_registry(docker: None, tmp_path: Path) -> None:
    cli, folder = Cli("", tmp_path, DOCKER_BUILDKIT="0"), _folder(tmp_path / "pushed")
    (folder / "Dockerfile").write_text(f"FROM {broken_image('/none', 0)}\nENV PUSHED=yes\n")
    (folder / "func.yaml").write_text("version: 1.2.3\n")
    assert "pushed:1.2.3: no registry; give --registry" in cli.fails(1, "push", cwd=folder)
    async with open_registry() as registry:
        registry.script = _TakesAll(registry)
        mine = ("--registry", f"{registry.host}/me")
        cli("build", *mine, cwd=folder)
        assert await asyncio.to_thread(cli, "push", *mine, cwd=folder) == f"Pushed {registry.host}/me/pushed:1.2.3\n"
        assert registry.requests[-1] == "PUT /v2/me/pushed/manifests/1.2.3"


class _TakesAll:
    """A registry's answers to one who pushes."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.taken: set[str] = set()

    def __call__(self, request: web.Request) -> web.StreamResponse | None:
        """One answer."""
        name = request.path.rpartition("/")[2]
        if request.method == "HEAD":
            headers = {"Docker-Content-Digest": name, "Content-Length": "1"}
            return web.Response(headers=headers) if name in self.taken else web.Response(status=404)
        if request.method in ("POST", "PATCH"):
            where = request.path + ("1" if request.method == "POST" else "")
            sent = f"0-{max(len(self.registry.body) - 1, 0)}"
            return web.Response(status=202, headers={"Location": where, "Docker-Upload-UUID": "1", "Range": sent})
        if request.method == "PUT":
            digest = request.query.get("digest", f"sha256:{'0' * 64}")
            self.taken.add(digest)
            return web.Response(status=201, headers={"Docker-Content-Digest": digest})
        return None
