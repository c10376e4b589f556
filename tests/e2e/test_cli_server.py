"""The command against a server: definitions, calls, logs, in Fn's words."""

from __future__ import annotations

import concurrent.futures
import json
import select
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.held import holding
from tests.support.node import HEARTH, RunningNode, build_multi, running_node
from tests.support.waiting import until

from hearth.cli.client import Client
from hearth.cli.follow import Follower


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node of processes."""
    data = tmp_path_factory.mktemp("cli-node")
    with running_node("process", data, build_multi(data, data / "source")) as node:
        yield node


@pytest.fixture(scope="module")
def cli(server: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command, meaning that node."""
    return Cli(server.url, tmp_path_factory.mktemp("home"))


def test_apps_from_first_to_last(cli: Cli) -> None:
    made = cli("apps", "create", "shop", "--config", "A=1", "-c", "GREETING=$WORD!", WORD="Hi")
    assert made == "Successfully created app: shop\n"
    assert cli.fails(1, "create", "app", "shop") == "hearth: App already exists"
    assert cli.json("apps", "inspect", "shop")["config"] == {"A": "1", "GREETING": "Hi!"}
    assert cli("inspect", "app", "shop", "config.A") == "1\n"
    cli("apps", "update", "shop", "--config", "A=2", "--config", "GREETING=")
    cli("config", "app", "shop", "B", "3")
    assert cli.json("list", "config", "app", "shop", "--output", "json") == {"A": "2", "B": "3"}
    assert cli("apps", "config", "get", "shop", "B") == "3\n"
    cli("unset", "config", "app", "shop", "B")
    assert cli.fails(1, "get", "config", "app", "shop", "B") == "hearth: B: no such config key; A"
    listed = cli("ls", "apps").splitlines()
    assert listed[0].split() == ["NAME", "UPDATED"]
    assert "shop" in [line.split()[0] for line in listed[1:]]
    assert cli("delete", "app", "shop") == "app shop deleted\n"  # nobody at a terminal, nobody asked
    assert cli.fails(1, "apps", "inspect", "shop") == "hearth: App not found"


def test_routes_with_every_flag(cli: Cli, server: RunningNode) -> None:
    flags = "--memory 64 --cpus 500m --type async --format json --timeout 200 --idle-timeout 7".split()
    created = cli(
        "routes",
        "create",
        "flags",
        "/a/b",
        "x/y:1",
        *flags,
        "--config",
        "K=V",
        "--headers",
        "X-Two=v1;v2",
        "-c",
        "E=a=b",
    )
    assert created == "/a/b created with x/y:1\n"
    route = cli.json("inspect", "route", "flags", "/a/b")
    wanted = {
        "image": "x/y:1",
        "memory": 64,
        "cpus": "500m",
        "type": "async",
        "format": "json",
        "timeout": 200,
        "idle_timeout": 7,
        "config": {"K": "V", "E": "a=b"},
        "headers": {"X-Two": ["v1", "v2"]},
    }
    assert {name: route[name] for name in wanted} == wanted
    cli("routes", "update", "flags", "a/b", "--image", "x/y:2", "--config", "K=")
    cli("route", "config", "set", "flags", "/a/b", "N", "1")
    changed = cli.json("routes", "inspect", "flags", "/a/b")
    assert (changed["image"], changed["config"], changed["memory"]) == ("x/y:2", {"E": "a=b", "N": "1"}, 64)
    cli("create", "route", "flags", "/", "--image", "root:1")
    assert cli("routes", "inspect", "flags", "/", "image") == "root:1\n"
    assert [line.split() for line in cli("routes", "list", "flags").splitlines()] == [
        ["PATH", "IMAGE", "ENDPOINT"],
        ["/", "root:1", f"{server.url}/r/flags/"],
        ["/a/b", "x/y:2", f"{server.url}/r/flags/a/b"],
    ]
    assert [route["path"] for route in cli.json("routes", "list", "flags", "--image", "root:1", "-o", "json")] == ["/"]
    cli("routes", "delete", "flags", "/a/b", "-f")
    assert cli.fails(1, "routes", "inspect", "flags", "/a/b") == "hearth: Route not found"


def test_a_call_takes_stdin_and_gives_the_answer_as_it_is(cli: Cli, server: RunningNode) -> None:
    server.route("called", "http")
    done = cli.run("call", "e2e", "/called", "--display-call-id", stdin='{"echo": "no newline"}')
    assert done.stdout == "no newline"
    call_id = done.stderr.removeprefix("Call ID: ").strip()
    assert cli("calls", "get", "e2e", call_id, "status") == "success\n"
    told = json.loads(
        cli("call", "e2e", "called", "-e", "X_FROM", "-H", "X-Given: yes", stdin='{"tell": 1}', X_FROM="env")
    )
    assert (told["headers"]["X_from"], told["headers"]["X-Given"]) == (["env"], ["yes"])
    told = json.loads(cli("call", "e2e", "called", "-H", "X-Word: grün", stdin='{"tell": 1}'))
    assert told["headers"]["X-Word"][0].encode("latin-1").decode() == "grün"
    large = json.dumps({"tell": 0, "pad": "x" * 3_000_000, "size": 2_000_000})
    assert len(cli("invoke", "e2e", "/called", stdin=large)) == 2_000_000
    full = json.loads(cli("invoke", "e2e", "/called", "--output", "json", stdin='{"echo": "x", "status": 201}'))
    assert (full["status_code"], full["body"]) == (201, "x")


def test_a_failed_call_is_one_line_that_says_where_to_look(cli: Cli, server: RunningNode) -> None:
    server.route("fails", "http")
    line = cli.fails(1, "call", "e2e", "/fails", stdin='{"exit": 3, "say": "oh no"}')
    assert line.startswith("hearth: error calling function: status 502: ")
    hint = line.rpartition("; ")[2]
    assert hint.endswith("shows what it wrote")
    command = hint.split(" shows ")[0].split()
    assert "oh no" in cli(*command[1:])
    own = cli.run("call", "e2e", "/fails", stdin='{"status": 418, "echo": "a pot"}')
    assert (own.returncode, own.stdout) == (1, "a pot")
    assert "status 418" in own.stderr
    assert cli.fails(1, "call", "e2e", "/none") == "hearth: error calling function: status 404: Route not found"


def test_an_async_call_tells_its_id_or_waits_for_its_log(cli: Cli, server: RunningNode) -> None:
    server.route("async", "default", type="async")
    call_id = cli("call", "e2e", "/async", stdin='{"echo": "done"}').strip()
    assert len(call_id) == 26
    assert cli("call", "e2e", "/async", "--wait", stdin='{"echo": "waited", "sleep_ms": 300}') == "waited\n"
    done = cli.run("call", "e2e", "/async", "--wait", stdin='{"say": "why", "exit": 4}')
    assert (done.returncode, done.stdout) == (1, "why\n")
    assert "container exit code 4" in done.stderr


def test_calls_and_logs(cli: Cli, server: RunningNode) -> None:
    for name in ("one", "two"):
        server.route(f"logged-{name}", "json")
        for _ in range(2):
            cli("call", "e2e", f"/logged-{name}", stdin=json.dumps({"say": f"log of {name}", "echo": ""}))
    listed = cli.json("list", "calls", "e2e", "--path", "/logged-one", "--output", "json")
    assert [call["path"] for call in listed] == ["/logged-one"] * 2
    older = cli.json("calls", "list", "e2e", "--path", "/logged-one", "--cursor", listed[0]["id"], "-o", "json")
    assert [call["id"] for call in older] == [listed[1]["id"]]
    assert len(cli("calls", "list", "e2e", "--n", "3").splitlines()) == 4
    assert cli.json("calls", "list", "e2e", "--to-time", "2018-01-31T16:52:39Z", "-o", "json") == []
    assert len(cli.json("calls", "list", "e2e", "--from-time", "2018-01-31T16:52:39Z", "-o", "json")) >= 4
    assert cli("logs", "get", "e2e", "last") == "log of two\n"
    assert cli("logs", "e2e", "last", "--path", "/logged-one") == "log of one\n"
    assert cli("get", "logs", "e2e", listed[0]["id"]) == "log of one\n"
    assert cli.fails(1, "logs", "get", "e2e", "0" * 26) == "hearth: Call log not found"


def test_logs_are_followed_live(cli: Cli, server: RunningNode) -> None:
    server.route("followed", "http")
    server.route("followed-later", "http", type="async")
    server.call("/r/e2e/followed", say="before")
    command = [HEARTH, "logs", "-f", "e2e", "--output", "json"]
    with subprocess.Popen(command, env=cli.environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            # Until the first line is seen nobody knows whether the command looks yet.
            line = ""
            while not line:
                assert following.poll() is None
                server.call("/r/e2e/followed", say="first")
                line = _line_within(following, 1.0)
            assert json.loads(line)["log"] == "first\n"
            server.call("/r/e2e/followed-later", say="second", sleep_ms=300)
            while (call := json.loads(following.stdout.readline()))["path"] != "/followed-later":
                assert call["log"] == "first\n"
            assert (call["log"].splitlines()[0], call["status"]) == ("second", "success")
        finally:
            following.terminate()


def test_following_misses_no_call_and_tells_none_twice_whatever_the_order_of_their_ends(server: RunningNode) -> None:
    path = server.route("followed-ends", "http")
    client = Client(server.url)
    follower = Follower(client, "e2e", "/followed-ends")
    told: Counter[str] = Counter()

    def look() -> None:
        told.update([call["id"] for call in follower.ended()])

    made: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool, holding(server, path, echo="made first") as first:
        for _ in range(3):  # more than a short look goes back
            answers = pool.map(lambda number: server.call(path, echo=str(number)), range(100))
            made += [answer.headers["fn_call_id"] for answer in answers]
            look()
        made.append(first.let_go().headers["fn_call_id"])
    assert until(lambda: look() or made[-1] in told)
    for _ in range(5):
        look()
    assert told == Counter(made)
    client.close()


def _line_within(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""


def test_versions(cli: Cli, tmp_path: Path) -> None:
    assert cli("version").splitlines()[1] == "Server version: 0.3.316"
    assert Cli("http://127.0.0.1:1", tmp_path)("version").splitlines()[1] == "Server version: ?"


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    line = Cli("http://127.0.0.1:1", tmp_path).fails(1, "apps", "list")
    assert "http://127.0.0.1:1;" in line
    assert "hearth start" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["appps"], "No such command 'appps'; see hearth --help"),
        (["apps", "create"], "Missing argument 'APP'; see hearth apps create --help"),
        (["apps", "create", "a", "--config", "K"], "'K': should be K=V"),
        (["routes", "create", "a", "/p"], "name what it runs"),
        (["calls", "list", "a", "--from-time", "noon"], "'noon': should be like 2018-01-31T16:52:39Z"),
        (["call", "a", "/p", "-e", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        (["apps", "list", "--output", "xml"], "'xml' is not one of"),
    ],
)
def test_misuse_is_one_line_and_status_2(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in Cli("http://127.0.0.1:1", tmp_path).fails(2, *arguments)
