"""The command against a server: definitions, calls, logs, in Fn's words."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pty
import re
import select
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
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
    made = cli("apps", "create", "shop", "--config", "A=1", "-c", "GREETING=pa$WORD $HOME ~ \\n!", WORD="Hi")
    assert made == "Successfully created app: shop\n"
    assert cli.fails(1, "create", "app", "shop") == "hearth: App already exists"
    assert cli.json("apps", "inspect", "shop")["config"] == {"A": "1", "GREETING": "pa$WORD $HOME ~ \\n!"}
    assert cli("inspect", "app", "shop", "config.A") == "1\n"
    cli("apps", "update", "shop", "--config", "A=2", "--config", "GREETING=")
    cli("config", "app", "shop", "B", "3")
    assert cli.json("list", "config", "app", "shop", "--output", "json") == {"A": "2", "B": "3"}
    assert cli("apps", "config", "get", "shop", "B") == "3\n"
    cli("unset", "config", "app", "shop", "B")
    assert cli.fails(1, "get", "config", "app", "shop", "B") == "hearth: B: no such config key; A"
    cli("apps", "update", "shop", "--quota", "memory_mib=512", "--quota", "burst=0", "--quota", "weight=")
    assert cli.json("apps", "inspect", "shop", "quotas") == {"memory_mib": 512, "burst": 0}
    cli("apps", "update", "shop", "--quota", "burst=")
    assert cli("apps", "inspect", "shop", "quotas.memory_mib") == "512\n"
    assert "'memory' is not one of memory_mib," in cli.fails(2, "apps", "update", "shop", "--quota", "memory=5")
    listed = cli("ls", "apps").splitlines()
    assert listed[0].split() == ["NAME", "UPDATED"]
    assert "shop" in [line.split()[0] for line in listed[1:]]
    assert cli("delete", "app", "shop") == "app shop deleted\n"  # nobody at a terminal, nobody asked
    assert cli.fails(1, "apps", "inspect", "shop") == "hearth: App not found"


def test_lists_as_yaml_and_as_names(cli: Cli) -> None:
    for name in ("listed", "listed-too"):
        cli("apps", "create", name)
    assert yaml.safe_load(cli("apps", "list", "-o", "yaml")) == cli.json("apps", "list", "-o", "json")
    assert {"listed", "listed-too"} <= set(cli("apps", "list", "-o", "name").splitlines())
    cli("routes", "create", "listed", "/a", "x/y:1")
    assert cli("routes", "list", "listed", "-o", "name") == "/a\n"
    assert cli("secrets", "list", "listed", "-o", "name") == ""
    assert cli("contexts", "list", "-o", "name") == "default\n"
    for name in ("listed", "listed-too"):
        cli("apps", "delete", name)


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
    rules = {"dead_letters": True, "expires_s": 60, "idempotency_ttl_s": 90, "max_queued": 5}
    cli(
        *("routes", "update", "flags", "/a/b", "--dead-letters", "yes", "--expires", "60"),
        *("--idempotency-ttl", "90", "--max-queued", "5"),
    )
    assert rules.items() <= cli.json("routes", "inspect", "flags", "/a/b").items()
    cli("routes", "update", "flags", "/a/b", "--dead-letters", "default", "--expires", "0", "--max-queued", "0")
    assert rules.keys() & cli.json("routes", "inspect", "flags", "/a/b").keys() == {"idempotency_ttl_s"}
    assert "must be yes, no or default" in cli.fails(2, "routes", "update", "flags", "/a/b", "--dead-letters", "maybe")
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
    assert cli("call", "e2e", "/async", "--wait", stdin='{"echo": "waited", "sleep_ms": 300}') == "waited"
    assert cli("result", "e2e", call_id, "--wait") == "done"
    done = cli.run("call", "e2e", "/async", "--wait", stdin='{"say": "why", "exit": 4}')
    assert (done.returncode, done.stdout) == (1, "")
    assert "container exit code 4: why; see the call's log; hearth logs get e2e " in done.stderr


@pytest.mark.parametrize("format_name", ["http", "json"])
def test_waiting_for_an_async_call_prints_its_answer_as_a_sync_call_does(
    cli: Cli, server: RunningNode, format_name: str
) -> None:
    path = f"/waited-{format_name}"
    server.route(path[1:], format_name, type="async")
    order = {"echo": "the answer", "say": 'HTTP/1.1 200 OK\r\n\r\n{"body":"", "status": 500}', "status": 201}
    done = cli.run("invoke", "e2e", path, "--wait", stdin=json.dumps(order))
    assert (done.returncode, done.stdout, done.stderr) == (0, "the answer", "")
    told = json.loads(cli("invoke", "e2e", path, "--wait", "-o", "json", stdin=json.dumps(order)))
    assert (told["status_code"], told["body"], told["path"]) == (201, "the answer", path)
    for status in (400, 500):
        done = cli.run("invoke", "e2e", path, "--wait", stdin=json.dumps({"echo": "what is wrong", "status": status}))
        assert (done.returncode, done.stdout) == (1, "what is wrong")
        assert f" answered status {status}; hearth logs get e2e " in done.stderr
        done = cli.run("invoke", "e2e", path, "--wait", "-o", "json", stdin=json.dumps({"status": status}))
        assert (done.returncode, json.loads(done.stdout)["status_code"]) == (1, status)
    line = cli.fails(1, "invoke", "e2e", path, "--wait", stdin=json.dumps({"say": "oh no", "exit": 4}))
    assert "container exit code 4" in line
    assert "oh no" in cli(*line.rpartition("; hearth ")[2].removesuffix(" shows what it wrote").split())
    large = json.dumps({"size": 2 << 20})
    assert "The result is larger than 1048576 bytes" in cli.run("invoke", "e2e", path, "--wait", stdin=large).stdout


def test_a_function_may_answer_202_itself(cli: Cli, server: RunningNode) -> None:
    server.route("answers-202", "http")
    assert cli("invoke", "e2e", "/answers-202", stdin='{"echo": "later", "status": 202}') == "later"


def test_headers_of_a_call_are_sent_in_order_and_as_often_as_given(cli: Cli, server: RunningNode) -> None:
    server.route("headers", "json")
    given = ["-H", "x: 1", "-H", "X: 2", "-H", "content-type: text/plain"]
    told = json.loads(cli("invoke", "e2e", "/headers", *given, stdin='{"tell": 1}'))
    assert (told["headers"]["X"], told["headers"]["Content-Type"]) == (["1", "2"], ["text/plain"])


def test_a_log_is_printed_byte_for_byte_in_a_pipe(cli: Cli, server: RunningNode) -> None:
    server.route("escapes", "http")
    order = json.dumps({"say": "\x1b[31mred\x1b[0m\r\x9b", "echo": "\x1b]0;title\x07"})
    assert cli("invoke", "e2e", "/escapes", stdin=order) == "\x1b]0;title\x07"
    assert cli("logs", "get", "e2e", "last", "--path", "/escapes") == "\x1b[31mred\x1b[0m\r\x9b\n"


def test_what_a_function_or_server_says_cannot_steer_a_terminal(cli: Cli, server: RunningNode) -> None:
    server.route("hostile", "http")
    hostile = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\tfine\r\nnext"
    harmless = "^[]0;title^G^[[2J\\u009b31m\\u202e\tfine\nnext"
    order = json.dumps({"say": hostile, "echo": hostile})
    assert on_a_terminal(cli, "invoke", "e2e", "/hostile", stdin=order) == f"{harmless}\n"
    assert on_a_terminal(cli, "logs", "get", "e2e", "last", "--path", "/hostile") == f"{harmless}\n"
    cli("apps", "create", "hostile", "--config", f"K={hostile}")
    for command in (["apps", "config", "list"], ["apps", "inspect"]):
        shown = on_a_terminal(cli, *command, "hostile")
        assert "fine" in shown
        assert not [sign for sign in ("\x1b]", "\x07", "\x1b[2", "\x9b", "\u202e") if sign in shown]
    failing = json.dumps({"status": 500, "echo": json.dumps({"message": hostile})})
    assert "^[]0;title^G^[[2J" in on_a_terminal(cli, "invoke", "e2e", "/hostile", stdin=failing)


def on_a_terminal(cli: Cli, *arguments: str, stdin: str = "", **environment: str) -> str:
    """What a command shows whose stdout and stderr are a terminal."""
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as shown, os.fdopen(follower, "wb") as terminal:
        subprocess.run(
            [HEARTH, *arguments],
            env={**cli.environment, **environment},
            input=stdin.encode(),
            stdout=terminal,
            stderr=terminal,
            check=False,
        )
        terminal.close()
        pieces: list[bytes] = []
        with contextlib.suppress(OSError):  # the terminal is gone
            pieces += iter(lambda: shown.read(4096), b"")
    return b"".join(pieces).decode().replace("\r\n", "\n")


def test_route_headers_are_removed_and_not_taken_apart(cli: Cli, server: RunningNode) -> None:
    server.route("typed", "http")
    typed = "text/html; charset=utf-8"
    more = ["--headers", "X-A=1;2", "--headers", "X-A=3", "--headers", "Set-Cookie=a=b; Path=/"]
    cli("routes", "update", "e2e", "/typed", "--headers", f"content-type={typed}", *more)
    answer = server.call("/r/e2e/typed", echo="hi")
    assert answer.headers.get_list("content-type") == [typed]
    assert answer.headers.get_list("x-a") == ["1", "2", "3"]
    assert answer.headers.get_list("set-cookie") == ["a=b; Path=/"]
    cli("routes", "update", "e2e", "/typed", "--headers", "X-A=", "--headers", "CONTENT-TYPE=")
    assert cli.json("routes", "inspect", "e2e", "/typed")["headers"] == {"Set-Cookie": ["a=b; Path=/"]}


def test_a_content_type_that_fn_took_apart_is_one_line(server: RunningNode) -> None:
    path = server.route("taken-apart", "http", headers={"Content-Type": ["text/html", " charset=utf-8"]})
    assert server.call(path, echo="hi").headers.get_list("content-type") == ["text/html; charset=utf-8"]


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


def test_a_table_of_calls_fits_80_columns_with_whole_ids(cli: Cli, server: RunningNode) -> None:
    path = server.route("fits-into-a-terminal", "http")
    for order in ({"echo": "x"}, {"exit": 3}, {"echo": "x", "status": 404}):
        server.call(path, **order)
    route = "/fits-into-a-terminal"
    listed = cli.json("calls", "list", "e2e", "--path", route, "-o", "json")
    shown = on_a_terminal(cli, "calls", "list", "e2e", "--path", route, COLUMNS="80", NO_COLOR="1", TERM="xterm")
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["ID", "ROUTE", "CREATED", "DURATION", "STATUS"]
    rows = {line.split()[0]: line for line in lines[1:] if line[0] != " "}
    assert list(rows) == [call["id"] for call in listed]
    for call in listed:
        assert f"{call['created_at'][:19]}Z" in rows[call["id"]]
        assert re.search(r" \d+(\.\d)? m?s ", rows[call["id"]])
    assert [re.split(r"\d m?s +", line)[1].strip() for line in rows.values()] == [
        "success 404",
        "error 502",
        "success 200",
    ]
    wide = cli("calls", "list", "e2e", "--path", route).splitlines()
    assert wide[0].split()[-1] == "ERROR"
    assert "container exit code 3" in wide[2]
    failed = cli("calls", "list", "e2e", "--path", route, "--status", "error").splitlines()
    assert [line.split()[0] for line in failed[1:]] == [listed[1]["id"]]


def test_the_body_of_a_call_can_be_an_option(cli: Cli, server: RunningNode, tmp_path: Path) -> None:
    server.route("with-data", "http")
    (tmp_path / "body.json").write_text('{"echo": "of a file"}')
    assert cli("invoke", "e2e", "/with-data", "-d", '{"echo": "gr\u00fcn"}', stdin="not this") == "grün"
    assert cli("invoke", "e2e", "/with-data", "--data", f"@{tmp_path}/body.json") == "of a file"
    assert "nowhere" in cli.fails(1, "invoke", "e2e", "/with-data", "-d", "@nowhere")


def test_the_last_lines_and_minutes_of_logs(cli: Cli, server: RunningNode) -> None:
    path = server.route("recent", "http")
    for number in range(3):
        server.call(path, say=f"line {number}a\nline {number}b", echo="")
    chosen = ("logs", "e2e", "--path", "/recent")

    def lines(*options: str) -> list[str]:
        return [line.strip() for line in cli(*chosen, *options).splitlines() if line.startswith("  ")]

    assert lines("--tail", "3") == ["line 1b", "line 2a", "line 2b"]
    assert lines("--tail", "0") == []
    assert lines("--since", "1h") == [f"line {number}{part}" for number in range(3) for part in "ab"]
    assert lines("--since", "2999-01-01T00:00:00Z") == []
    newest = cli.json("calls", "list", "e2e", "--path", "/recent", "-n", "2", "-o", "json")
    assert lines("--since", newest[1]["created_at"]) == ["line 1a", "line 1b", "line 2a", "line 2b"]
    assert cli("logs", "e2e", newest[0]["id"], "--tail", "1") == "line 2b\n"
    assert "'noon': should be like 30s" in cli.fails(2, *chosen, "--since", "noon")
    assert "--since" in cli.fails(2, "logs", "e2e", newest[0]["id"], "--since", "1h")


def test_following_starts_with_the_past_that_is_asked_for(cli: Cli, server: RunningNode) -> None:
    path = server.route("followed-from", "http")
    before = [server.call(path, say=f"before {number}").headers["fn_call_id"] for number in range(3)]
    command: list[str | Path] = [HEARTH, "logs", "-f", "e2e", "/followed-from", "--tail", "2", "--output", "json"]
    with subprocess.Popen(command, env=cli.environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            told = [json.loads(following.stdout.readline()) for _ in range(2)]
            assert [call["id"] for call in told] == before[1:]
            after = server.call(path, say="after").headers["fn_call_id"]  # whether the command looks already or not
            assert json.loads(following.stdout.readline())["id"] == after
        finally:
            following.terminate()


def test_following_one_call_waits_for_its_end(cli: Cli, server: RunningNode) -> None:
    server.route("followed-one", "default", type="async")
    call_id = cli("invoke", "e2e", "/followed-one", "-d", '{"say": "first", "sleep_ms": 300, "echo": ""}').strip()
    assert cli("logs", "e2e", call_id, "-f") == "first\n"


def test_logs_are_followed_live(cli: Cli, server: RunningNode) -> None:
    server.route("followed", "http")
    server.route("followed-later", "http", type="async")
    server.call("/r/e2e/followed", say="before")
    command: list[str | Path] = [HEARTH, "logs", "-f", "e2e", "--output", "json"]
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
    assert cli("version").splitlines()[1] == "Server version: 0.3.753"
    assert Cli("http://127.0.0.1:1", tmp_path)("version").splitlines()[1] == "Server version: ?"


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    line = Cli("http://127.0.0.1:1", tmp_path).fails(1, "apps", "list")
    assert "http://127.0.0.1:1;" in line
    assert "hearth start" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["appps"], "No such command 'appps'. Did you mean 'apps'? See hearth --help"),
        (["apps", "create"], "Missing argument 'APP'; see hearth apps create --help"),
        (["apps", "create", "a", "--config", "K"], "'K': must be K=V"),
        (["apps", "delete", "-f", "a/routes/x"], "'a/routes/x': a name must not be '.' or '..', or contain '/'"),
        (["inspect", "app", "a/routes"], "'a/routes': a name must not"),
        (["routes", "create", "..", "/p", "i"], "'..': a name must not"),
        (["calls", "get", "a", "x/log"], "'x/log': a name must not"),
        (["logs", "a", "x/y"], "'x/y': a name must not"),
        (["invoke", "a/b"], "'a/b': a name must not"),
        (["invoke", "a", "/p", "-H", "Content-Length: 5"], "Content-Length: set by the command itself"),
        (["invoke", "a", "/p", "-H", "no header"], "'no header': must be NAME: VALUE"),
        (["routes", "create", "a", "/p"], "name what it runs"),
        (["calls", "list", "a", "--from-time", "noon"], "'noon': should be like 2018-01-31T16:52:39Z"),
        (["call", "a", "/p", "-e", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        (["apps", "list", "--output", "xml"], "'xml' is not one of"),
    ],
)
def test_misuse_is_one_line_and_status_2(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in Cli("http://127.0.0.1:1", tmp_path).fails(2, *arguments)
