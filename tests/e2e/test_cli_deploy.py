"""From an empty folder to an answer, by command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.answering import answering
from tests.support.base_image import base_image
from tests.support.cli import Cli
from tests.support.docker_images import broken_image, python_image
from tests.support.impostor import impostor_node
from tests.support.node import MULTI, RunningNode, running_node
from tests.support.registry import Registry, open_registry

from hearth.authorize.tokens import new_token


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
    assert route["image"].startswith("again:0.0.2@sha256:")
    assert (route["format"], route["timeout"], route["headers"]) == ("http-stream", 9, {"X-A": ["b"]})
    code.write_text(code.read_text().replace("Hello", "Bye"))
    cli("deploy", "--app", "twice", "--no-bump", "-w", tmp_path / "again")
    assert "version: 0.0.2\n" in file.read_text()
    assert json.loads(cli("invoke", "twice", "/again")) == {"message": "Bye World"}
    assert cli("bump", tmp_path / "again") == "Bumped to version 0.0.3\n"


def test_a_deploy_sets_what_callers_show_and_never_opens_a_route_because_the_file_says_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    cli("init", "--runtime", "exec", "closed", cwd=tmp_path)
    folder = tmp_path / "closed"
    plain = (folder / "func.yaml").read_text()
    (folder / "app.yaml").write_text("name: closed\nauth: token\n")
    (folder / "func.yaml").write_text(f"{plain}auth: token\n")
    cli("deploy", "--no-bump", cwd=folder)
    assert cli.json("apps", "inspect", "closed")["auth"] == "token"
    assert cli.json("routes", "inspect", "closed", "/")["auth"] == "token"
    (folder / "app.yaml").write_text("name: closed\n")
    (folder / "func.yaml").write_text(plain)
    done = cli.run("deploy", "--no-bump", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert cli.json("apps", "inspect", "closed")["auth"] == "token"
    assert cli.json("routes", "inspect", "closed", "/")["auth"] == "token"
    (told,) = [line for line in done.stderr.splitlines() if "kept auth" in line]
    hint = told.removeprefix("hearth: /: kept auth token, which func.yaml does not set; hearth ").removesuffix(
        " removes it"
    )
    cli(*hint.split())
    assert "auth" not in cli.json("routes", "inspect", "closed", "/")
    (folder / "func.yaml").write_text(f"{plain}auth: open\n")
    cli("deploy", "--no-bump", cwd=folder)
    assert cli.json("routes", "inspect", "closed", "/")["auth"] == "open"


def test_a_deploy_makes_the_route_equal_to_the_file_but_for_config_that_is_set_by_hand(
    cli: Cli, tmp_path: Path
) -> None:
    cli("init", "--runtime", "exec", "equal", cwd=tmp_path)
    folder = tmp_path / "equal"
    file = folder / "func.yaml"
    plain = file.read_text()
    more = "memory: 64\ntimeout: 9\nidle_timeout: 5\ntype: async\nheaders: {X-A: b, X-B: c}\nconfig: {K: v}\n"
    file.write_text(plain + more)
    cli("deploy", "--app", "equal", cwd=folder)
    cli("routes", "config", "set", "equal", "/equal", "BY_HAND", "1")
    version = file.read_text().partition("runtime")[0]
    file.write_text(version + "runtime: exec\ncmd: [cat]\nheaders: {x-b: d}\nconfig: {K: w}\n")
    done = cli.run("deploy", "--app", "equal", cwd=folder)
    assert done.returncode == 0, done.stderr
    route = cli.json("routes", "inspect", "equal", "/equal")
    names = ("memory", "timeout", "idle_timeout", "type", "format", "headers", "config")
    defaults = [128, 30, 30, "sync", "default"]
    assert [route[name] for name in names] == [*defaults, {"x-b": ["d"]}, {"K": "w", "BY_HAND": "1"}]
    told = done.stderr.splitlines()
    assert "hearth: /equal: timeout 9 -> 30, as func.yaml does not set it" in told
    assert len(told) == 5
    hint = told[-1].removeprefix("hearth: /equal: kept config BY_HAND, which func.yaml does not set; hearth ")
    cli(*hint.removesuffix(" removes it").split())
    assert cli.run("deploy", "--app", "equal", cwd=folder).stderr == ""
    assert cli.json("routes", "inspect", "equal", "/equal", "config") == {"K": "w"}


def test_a_deploy_stores_the_schedules_of_the_file_and_tells_which_others_stay(cli: Cli, tmp_path: Path) -> None:
    cli("init", "--runtime", "exec", "timed", cwd=tmp_path)
    folder = tmp_path / "timed"
    file = folder / "func.yaml"
    plain = file.read_text()
    file.write_text(f"{plain}schedules:\n- {{name: nightly, cron: 30 2 * * *, timezone: Europe/Berlin}}\n")
    done = cli.run("deploy", "--app", "timed", "--no-bump", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "schedule nightly calls /timed next at 20" in done.stderr
    (stored,) = cli.json("schedules", "list", "timed", "-o", "json")
    assert (stored["name"], stored["route"], len(stored["next"])) == ("nightly", "/timed", 5)
    assert cli("schedules", "next", "timed", "nightly").split() == stored["next"]
    cli("schedules", "update", "timed", "nightly", "--disabled", "-d", "text", "-H", "X: y")
    cli("schedules", "update", "timed", "nightly", "--every", "90s")
    (stored,) = cli.json("schedules", "list", "timed", "-o", "json")
    assert (stored["every"], "timezone" in stored, stored["enabled"]) == ("90s", False, False)
    assert (stored["payload"], stored["headers"]) == ("text", {"X": ["y"]})
    call_id = cli("schedules", "run", "timed", "nightly").strip()
    assert cli.json("calls", "get", "timed", call_id)["origin"] == "schedule nightly"
    file.write_text(f"{plain}schedules: []\n")
    told = cli.run("deploy", "--app", "timed", "--no-bump", cwd=folder).stderr
    hint = told.strip().removeprefix("hearth: /timed: kept schedule nightly, which func.yaml does not set; hearth ")
    cli(*hint.removesuffix(" deletes it").split(), "-f")
    assert cli.json("schedules", "list", "timed", "-o", "json") == []


def test_a_limit_that_a_deploy_cannot_remove_is_told(cli: Cli, tmp_path: Path) -> None:
    cli("init", "--runtime", "exec", "limited", cwd=tmp_path)
    folder = tmp_path / "limited"
    plain = (folder / "func.yaml").read_text()
    (folder / "func.yaml").write_text(f"{plain}cpus: 500m\n")
    first = cli.run("deploy", "--app", "limited", "--no-bump", cwd=folder)
    if "cannot limit the CPU" in first.stderr:
        pytest.skip("no cpu control group here")
    assert "kept cpus" not in first.stderr
    (folder / "func.yaml").write_text(plain)
    done = cli.run("deploy", "--app", "limited", "--no-bump", cwd=folder)
    assert done.returncode == 0, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "kept cpus" in line]
    assert told == (
        "hearth: /limited: kept cpus 500m, which func.yaml does not set; to remove this limit, delete the route and "
        "deploy again"
    )
    assert cli.json("routes", "inspect", "limited", "/limited")["cpus"] == "500m"


@pytest.mark.parametrize("command", [["build"], ["deploy", "--app", "links"]], ids=["build", "deploy"])
def test_a_link_that_leaves_the_folder_is_taken_only_if_that_is_asked_for(
    cli: Cli, server: RunningNode, tmp_path: Path, command: list[str]
) -> None:
    cli("init", "--runtime", "exec", "links", cwd=tmp_path)
    (tmp_path / "outside.txt").write_text("from outside")
    (tmp_path / "links" / "inside.txt").symlink_to("../outside.txt")
    file = tmp_path / "links" / "func.yaml"
    file.write_text(f"{file.read_text().partition('cmd')[0]}cmd: [cat, inside.txt]\n")
    (tmp_path / "links" / "left.pyc").write_bytes(b"")
    (tmp_path / "links" / ".hearthignore").write_text("left.pyc\n")
    built = {"cwd": tmp_path / "links", "FN_DATA_DIR": str(server.data), "FN_DRIVER": "process"}
    refused = cli.run(*command, **built)  # type: ignore[arg-type]
    assert refused.returncode == 1
    assert "inside.txt: links to" in refused.stderr
    assert "--follow-outside" in refused.stderr
    done = cli.run(*command, "--follow-outside", "-v", **built)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert "left out: left.pyc" in done.stderr.splitlines()
    if command[0] == "deploy":
        (tmp_path / "outside.txt").unlink()
        assert cli("invoke", "links", "/links", stdin="") == "from outside"


def test_all_functions_of_an_app(cli: Cli, tmp_path: Path) -> None:
    cli("init", "--runtime", "exec", "--name", "root", ".", cwd=_folder(tmp_path / "shop"))
    cli("init", "--runtime", "exec", tmp_path / "shop" / "below" / "shout")
    (tmp_path / "shop" / "app.yaml").write_text("name: whole\nconfig: {A: '1'}\n")
    cli("deploy", "--all", cwd=tmp_path / "shop")
    assert [route["path"] for route in cli.json("list", "route", "whole", "-o", "json")] == ["/", "/shout"]
    assert cli("apps", "config", "get", "whole", "A") == "1\n"
    assert cli("invoke", "whole", "/shout", stdin="loud") == "LOUD"
    assert cli("invoke", "whole", stdin="root") == "ROOT"


def test_two_apps_run_their_own_code_though_their_functions_have_one_name(cli: Cli, tmp_path: Path) -> None:
    images = []
    for app, word in (("one", "Hello"), ("two", "Bye")):
        folder = tmp_path / app / "greet"
        cli("init", folder)
        (folder / "func.py").write_text((folder / "func.py").read_text().replace("Hello", word))
        cli("deploy", "--app", app, cwd=folder)
        images.append(cli("inspect", "route", app, "/greet", "image").strip())
    assert json.loads(cli("invoke", "one", "/greet")) == {"message": "Hello World"}
    assert json.loads(cli("invoke", "two", "/greet")) == {"message": "Bye World"}
    first = tmp_path / "one" / "greet" / "func.py"
    first.write_text(first.read_text().replace("Hello", "Good day"))
    cli("deploy", "--app", "one", cwd=first.parent)
    assert json.loads(cli("invoke", "one", "/greet")) == {"message": "Good day World"}
    cli("routes", "update", "one", "/greet", "--image", images[0])  # back to the one before
    assert json.loads(cli("invoke", "one", "/greet")) == {"message": "Hello World"}


def test_functions_below_a_folder_are_named_by_their_path(cli: Cli, tmp_path: Path) -> None:
    for name in ("users", "orders"):
        folder = tmp_path / name / "get"
        folder.mkdir(parents=True)
        (folder / "func.yaml").write_text(f"cmd: [echo, {name}]\npath: /{name}\n")
    cli("deploy", "--all", "--app", "named", cwd=tmp_path)
    images = [route["image"].partition("@")[0] for route in cli.json("list", "route", "named", "-o", "json")]
    assert images == ["orders-get:0.0.1", "users-get:0.0.1"]
    assert [cli("invoke", "named", f"/{name}") for name in ("users", "orders")] == ["users\n", "orders\n"]


@pytest.mark.parametrize(
    ("recipes", "told"),
    [
        (("cmd: [cat]\n", "cmd: [cat]\n"), "b/get/func.yaml: path /get is that of {}/a/get/func.yaml as well"),
        (("name: f\npath: a\n", "name: f\npath: b\n"), "b/get/func.yaml: name f is that of {}/a/get/func.yaml as well"),
    ],
)
def test_two_functions_of_one_name_or_path_are_refused_before_anything_is_built(
    cli: Cli, server: RunningNode, tmp_path: Path, recipes: tuple[str, str], told: str
) -> None:
    for place, recipe in zip("ab", recipes, strict=True):
        folder = tmp_path / place / "get"
        folder.mkdir(parents=True)
        (folder / "func.yaml").write_text(f"version: 0.0.1\ncmd: [cat]\n{recipe.removeprefix('cmd: [cat]')}")
    line = cli.fails(1, "deploy", "--all", "--app", "twins", "-w", tmp_path)
    assert told.format(tmp_path) in line
    assert server.http.get("/v1/apps/twins").status_code == 404
    assert "version: 0.0.1\n" in (tmp_path / "a" / "get" / "func.yaml").read_text()


def test_what_is_wrong_with_a_function_is_said_before_anything_changes(
    cli: Cli, server: RunningNode, tmp_path: Path
) -> None:
    cli("init", tmp_path / "good")
    cli("init", tmp_path / "bad")
    (tmp_path / "bad" / "func.py").write_text("def handler(ctx, data):\n    return data\n")
    line = cli.fails(1, "deploy", "--all", "--app", "faulty", "-w", tmp_path)
    assert f"{tmp_path}/bad/func.py:1: no handler. Decorate one function with @function" in line
    (tmp_path / "bad" / "func.py").write_text((tmp_path / "good" / "func.py").read_text())
    (tmp_path / "bad" / "secret").symlink_to("/etc/passwd")
    assert "bad/secret: links to" in cli.fails(1, "deploy", "--all", "--app", "faulty", "-w", tmp_path)
    (tmp_path / "bad" / "secret").unlink()
    recipe = tmp_path / "bad" / "func.yaml"
    recipe.write_text(recipe.read_text().replace("0.0.1", "newest"))
    assert "'newest' cannot be raised" in cli.fails(1, "deploy", "--all", "--app", "faulty", "-w", tmp_path)
    assert server.http.get("/v1/apps/faulty").status_code == 404
    (tmp_path / "bad" / "func.py").write_text("def handler(ctx, data):\n    return data\n")
    assert "no handler" in cli.fails(1, "build", tmp_path / "bad", FN_DATA_DIR=str(tmp_path / "data"))


def test_the_version_is_raised_only_by_a_build_that_succeeds(cli: Cli, tmp_path: Path) -> None:
    cli("init", tmp_path / "f")
    file, needs = tmp_path / "f" / "func.yaml", tmp_path / "f" / "requirements.txt"
    needs.write_text("./nowhere\n")
    for _ in range(2):
        assert "cannot be installed" in cli.fails(1, "deploy", "--app", "v", cwd=tmp_path / "f")
        assert "version: 0.0.1\n" in file.read_text()
    needs.unlink()
    cli("deploy", "--app", "v", cwd=tmp_path / "f")
    assert "version: 0.0.2\n" in file.read_text()


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


def test_a_deploy_writes_into_no_folder_of_a_server(tmp_path: Path) -> None:
    """Neither an answer nor a file leads it to one."""
    victim = tmp_path / "victim"
    (victim / "bundles").mkdir(parents=True)
    (victim / "bundles" / "kept").write_text("x")
    folder = _folder(tmp_path / "fn")
    Cli("", tmp_path)("init", "--runtime", "exec", cwd=folder)
    before = (folder / "func.yaml").read_text()
    with answering() as hostile:
        hostile.headers = {"Hearth-Driver": "process", "Hearth-Bundles": str(victim / "bundles")}
        (victim / "hearth.lock").write_text(f"process {os.getpid()}, {hostile.url}")
        line = Cli(hostile.url, tmp_path).fails(1, "deploy", "--app", "a", cwd=folder)
    assert "is this a Hearth server?" in line
    assert sorted(path.name for path in victim.rglob("*")) == ["bundles", "hearth.lock", "kept"]
    assert (folder / "func.yaml").read_text() == before


def test_a_deploy_writes_nothing_into_the_folder_of_another_user(tmp_path: Path) -> None:
    """Whoever owns a folder can lead what root writes there to any place, and have root change modes there."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        Path(name).chmod(0o755)
        data, elsewhere = Path(name, "data"), tmp_path / "elsewhere"
        data.mkdir()
        elsewhere.mkdir()
        (data / "bundles").symlink_to(elsewhere)
        (data / "admin-token").write_text(new_token())
        (data / "admin-token").chmod(0o600)
        url = stack.enter_context(impostor_node(data, tmp_path / "seen", status="200 OK"))
        folder = _folder(tmp_path / "fn")
        Cli("", tmp_path)("init", "--runtime", "exec", cwd=folder)
        Cli(url, tmp_path).fails(1, "deploy", "--app", "a", cwd=folder)
        assert list(elsewhere.iterdir()) == []


#: What a server says about itself, options, and why nothing can be deployed to it. Nothing is built.
REFUSED = {
    "an API node that knows no driver": (
        {"Hearth-Version": "1", "Hearth-Node": "api"},
        [],
        "does not say how it runs functions: it is an API node without FN_DRIVER",
    ),
    "images for a server of bundles": (
        {"Hearth-Version": "1", "Hearth-Driver": "process", "Hearth-Node": "full"},
        ["--driver", "docker"],
        "runs functions with the driver process; leave the option out",
    ),
    "an image that another machine cannot get": (
        {"Hearth-Version": "1", "Hearth-Driver": "docker", "Hearth-Node": "full"},
        [],
        "stays on this machine",
    ),
    "an image that a server of Fn on another machine cannot get": ({}, [], "stays on this machine"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_deploy_that_cannot_work_is_refused_before_anything_changes(what: str, tmp_path: Path) -> None:
    told, options, sentence = REFUSED[what]
    folder = _folder(tmp_path / "fn")
    Cli("", tmp_path)("init", "--runtime", "exec", cwd=folder)
    before = (folder / "func.yaml").read_text()
    with answering() as server:
        server.headers = told
        url = server.url.replace("127.0.0.1", "127.1")  # a name that is not known to be this machine's
        assert sentence in Cli(url, tmp_path).fails(1, "deploy", "--app", "a", *options, cwd=folder)
        assert not [request for request in server.requests if not request.startswith("GET ")]
    assert (folder / "func.yaml").read_text() == before


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
    assert cli("inspect", "route", "d", "/imaged", "image").startswith("127.0.0.1:1/me/imaged:1.0.0@sha256:")
    assert json.loads(cli("invoke", "d", "/imaged", stdin='{"tell": 1}'))["env"]["BUILT"] == "here"


def test_an_image_that_another_app_builds_under_the_same_tag_changes_no_route(docked: Cli, tmp_path: Path) -> None:
    for app in ("one", "two"):
        folder = tmp_path / app / "twin"
        folder.mkdir(parents=True)
        (folder / "func.yaml").write_text("name: hearth-test/twin\nversion: 0.0.1\n")
        (folder / "Dockerfile").write_text(f"FROM {python_image(MULTI)}\nENV BUILT={app}\n")
        docked("deploy", "--app", f"twin-{app}", "--no-bump", "--local", cwd=folder)
    for app in ("one", "two"):
        image = docked("inspect", "route", f"twin-{app}", "/twin", "image").partition("@")[2].strip()
        tags = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.RepoTags}}", image],
            check=True,
            capture_output=True,
            text=True,
        )
        assert f"hearth-test/twin:{image.replace(':', '-')}" in tags.stdout  # docker cleans up what has no tag
        told = json.loads(docked("invoke", f"twin-{app}", "/twin", stdin='{"tell": 1}'))
        assert told["env"]["BUILT"] == app


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
