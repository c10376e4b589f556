"""Whatever is broken around a command, it ends with one line and an exit status, never with a traceback."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import pytest
import typer
from tests.support.cli import Cli, Done
from tests.support.node import HEARTH
from tests.support.served_api import (
    APP,
    CALL,
    DEAD,
    NODE,
    ROUTE,
    SCHEDULE,
    TOKEN,
    TOKENS,
    WAITING,
    ServedApi,
    served_node,
)

from hearth.cli.main import app
from hearth.models.errors import Unauthenticated

FOLDER: Final = "FOLDER"
#: A name that nothing has yet.
NEW: Final = "NEW"
_ROUTE: Final = f"/{ROUTE}"
#: Every command, with arguments with which it succeeds against :func:`~tests.support.served_api.served_node`.
ARGUMENTS: Final[dict[str, list[str]]] = {
    "start": [],
    "result": [APP, CALL],
    "migrate status": ["--db-url", f"sqlite3://{FOLDER}/up.db"],
    "migrate up": ["--db-url", f"sqlite3://{FOLDER}/up.db"],
    "migrate down": ["--db-url", f"sqlite3://{FOLDER}/up.db"],
    "doctor": [],
    "prune": ["--dry-run"],
    "backup": [f"{FOLDER}/backup.tar"],
    "restore": [f"{FOLDER}/none.tar"],
    "images list": [],
    "images verify": [],
    "init": [f"{FOLDER}/new", "--runtime", "exec", "--force"],
    "build": [FOLDER, "--driver", "process"],
    "run": [FOLDER],
    "test": [FOLDER],
    "dev": [FOLDER, "--port", "0"],
    "push": [FOLDER, "--registry", "127.0.0.1:1/none"],
    "pull": ["none:1"],
    "bump": [FOLDER],
    "deploy": ["--app", APP, "-w", FOLDER],
    "invoke": [APP, _ROUTE, "-o", "json"],
    "version": [],
    "nodes list": [],
    "nodes drain": [NODE.id],
    "tokens create": [NEW, "--role", "viewer"],
    "tokens list": [],
    "tokens revoke": [TOKEN, "-f"],
    "login": [],
    "logout": [],
    "apps create": [NEW],
    "apps list": [],
    "apps inspect": [APP],
    "apps update": [APP, "--config", "K=V"],
    "apps delete": [APP, "-f"],
    "apps config set": [APP, "K", "V"],
    "apps config unset": [APP, "K"],
    "apps config get": [APP, "A"],
    "apps config list": [APP],
    "routes create": [APP, "/made", "image"],
    "routes list": [APP],
    "routes inspect": [APP, _ROUTE],
    "routes update": [APP, _ROUTE, "--memory", "64"],
    "routes delete": [APP, _ROUTE, "-f"],
    "routes config set": [APP, _ROUTE, "K", "V"],
    "routes config unset": [APP, _ROUTE, "K"],
    "routes config get": [APP, _ROUTE, "K"],
    "routes config list": [APP, _ROUTE],
    "versions": [APP, _ROUTE],
    "rollback": [APP, _ROUTE],
    "secrets set": [APP, "KEY", "--file", f"{FOLDER}/func.yaml"],
    "secrets list": [APP],
    "secrets remove": [APP, "KEY", "-f"],
    "secrets rotate-key": [],
    "schedules create": [APP, NEW, "--route", _ROUTE, "--every", "90s"],
    "schedules list": [APP],
    "schedules update": [APP, SCHEDULE, "--disabled"],
    "schedules delete": [APP, SCHEDULE, "-f"],
    "schedules run": [APP, SCHEDULE],
    "schedules next": [APP, SCHEDULE],
    "registries set": [APP, "ghcr.io", "--username", "me"],
    "registries list": [APP],
    "registries remove": [APP, "ghcr.io", "-f"],
    "calls list": [APP],
    "calls get": [APP, CALL],
    "calls cancel": [APP, WAITING],
    "dead-letters list": [APP],
    "dead-letters show": [APP, DEAD],
    "dead-letters redrive": [APP, DEAD],
    "dead-letters purge": [APP, "-f"],
    "logs get": [APP, CALL],
    "contexts create": [NEW],
    "contexts list": [],
    "contexts use": ["default"],
    "contexts unset": [],
    "contexts update": ["registry", "here"],
    "contexts delete": [NEW],
    "contexts inspect": [],
}
#: Commands that go on until they are stopped.
SERVING: Final = ("start", "dev")
#: Commands that fail here: no function runs, no registry answers or is named, no route has an earlier version, there is
#: nothing to back up or restore.
FAILING: Final = ("invoke", "push", "pull", "rollback", "backup", "restore")
#: What has to be done before a command succeeds.
BEFORE: Final = {
    "contexts delete": "contexts create",
    "logout": "login",
    "migrate down": "migrate up",
    "migrate status": "migrate up",
    "routes config get": "routes config set",
    "secrets remove": "secrets set",
    "registries remove": "registries set",
}
#: What commands read from stdin.
STDIN: Final = {"login": f"{TOKENS['admin']}\n", "registries set": "password\n"}
_COUNT: Final = itertools.count()
_VERBS: Final = {"app": "apps", "route": "routes", "call": "calls", "log": "logs", "context": "contexts"}
LONG: Final = "x" * 300


def commands(group: Any = None, prefix: str = "") -> Iterator[str]:
    """Every command that there is, by its words."""
    group = group if group is not None else typer.main.get_command(app)
    context = group.make_context("hearth", [], resilient_parsing=True)
    for name in group.list_commands(context):
        shown = group.get_command(context, name)
        if shown.hidden:
            continue
        _, found, _ = group.resolve_command(context, [name])
        if hasattr(found, "list_commands"):
            yield from commands(found, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


COMMANDS: Final = sorted(commands())
#: Those that end by themselves; and of two with the same effect, one.
ENDING: Final = [command for command in COMMANDS if command not in SERVING]
#: One shows the answer of the server as JSON, the other asks no server.
WITHOUT_TOKEN: Final = {"invoke", "logout"}
DISTINCT: Final = [command for command in ENDING if command in ARGUMENTS]


def by_object(command: str) -> str:
    """A command with its object first: ``VERB OBJECT`` does as ``OBJECTS VERB``."""
    if command in ARGUMENTS:
        return command
    words = command.split()
    if words[0] == "config":
        return f"{_VERBS[words[1]]} config set"
    if words[1] == "config":
        return f"{_VERBS[words[2]]} config {'unset' if words[0] == 'delete' else words[0]}"
    verb = "get" if words[1] in ("call", "log") and words[0] == "inspect" else words[0]
    verb = "inspect" if words[0] == "get" and words[1] in ("app", "route") else verb
    return f"{_VERBS[words[1]]} {verb}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    """An API with an app, a route, a call and its log."""
    with served_node(tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A function that is one program, with a test."""
    folder = tmp_path_factory.mktemp("functions") / "f"
    folder.mkdir()
    (folder / "func.yaml").write_text("version: 0.0.1\nruntime: exec\ncmd: [echo, hi]\n")
    (folder / "test.yaml").write_text("tests: [{name: one}]\n")
    return folder


class Commands:
    """Runs commands by their words."""

    def __init__(self, url: str, folder: Path, home: Path) -> None:
        self.cli = Cli(url, home, FN_DATA_DIR=str(home), FN_DRIVER="process", FN_PORT="0")
        self._folder = folder
        self._new = ""

    def run(self, command: str, given: list[str] | None = None, **streams: TextIO | None) -> Done:
        """Run one, with the arguments with which it succeeds unless others are given."""
        self._new = f"new-{next(_COUNT)}"
        if given is None and (before := BEFORE.get(by_object(command))):
            self.cli.run(*before.split(), *self.words(before), stdin=STDIN.get(before, ""))
        given_stdin = STDIN.get(command, "")
        return self.cli.run(*command.split(), *self.words(command, given), stdin=given_stdin, streams=streams)

    def words(self, command: str, given: list[str] | None = None) -> list[str]:
        """The arguments of a command."""
        chosen = ARGUMENTS[by_object(command)] if given is None else given
        return [word.replace(FOLDER, str(self._folder)).replace(NEW, self._new) for word in chosen]


@pytest.fixture
def run(server: ServedApi, folder: Path, tmp_path: Path) -> Commands:
    """Runs commands against the server."""
    server.seed()
    return Commands(server.url, folder, tmp_path)


def assert_one_line(done: Done, status: tuple[int, ...] = (1,)) -> None:
    """It failed, and said why in a line."""
    assert done.returncode in status, done
    assert "Traceback" not in done.stderr
    assert [line.startswith("hearth: ") for line in done.stderr.splitlines()[-1:]] == [True], done.stderr
    assert done.stderr.count("hearth: ") == 1, done.stderr


def test_every_command_is_tried() -> None:
    assert len(COMMANDS) > 40
    for command in COMMANDS:
        assert by_object(command) in ARGUMENTS


@pytest.mark.parametrize("command", ENDING)
def test_a_full_disk_behind_stdout_is_an_error(command: str, run: Commands) -> None:
    with _full() as full:
        assert_one_line(run.run(command, stdout=full))


@pytest.mark.parametrize("command", DISTINCT)
def test_a_reader_that_has_seen_enough_is_no_reason_for_words(command: str, run: Commands) -> None:
    with _closed_pipe() as pipe:
        done = run.run(command, stdout=pipe)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    if command == "invoke" or command not in FAILING:  # they fail before they write
        assert "hearth: " not in done.stderr


@pytest.mark.parametrize("command", ["invoke", *STDIN])
def test_a_stdin_that_cannot_be_read_is_one_line(command: str, run: Commands) -> None:
    given = [APP, _ROUTE] if command == "invoke" else None
    done = run.run(command, given, stdin=io.TextIOWrapper(io.BufferedReader(_Unreadable())))
    assert_one_line(done)
    assert "Input/output error" in done.stderr


@pytest.mark.parametrize("command", DISTINCT)
def test_closed_streams_are_not_in_the_way(command: str, run: Commands) -> None:
    done = run.run(command, stdin=None)
    assert "Traceback" not in done.stderr
    assert done.returncode == (command in FAILING or command in STDIN), done.stderr
    assert_one_line(run.run(command, stdout=None))


@pytest.mark.parametrize("command", DISTINCT)
def test_a_server_that_is_away_or_strange_is_one_line(command: str, folder: Path, tmp_path: Path) -> None:
    with _strange_server() as url:
        for address in ("http://127.0.0.1:1", url, "http://[bad", "ftp://h"):
            done = Commands(address, folder, tmp_path).run(command)
            if done.returncode:
                assert_one_line(done)


@pytest.mark.parametrize("command", DISTINCT)
def test_a_wrong_token_is_one_line_that_says_so(command: str, folder: Path, tmp_path: Path) -> None:
    refusal = json.dumps({"error": {"message": Unauthenticated.message}})
    with _strange_server("401 Unauthorized", refusal) as url:
        refused = Commands(url, folder, tmp_path).run(command)
    away = Commands("http://127.0.0.1:1", folder, tmp_path).run(command)
    if refused.returncode and not refused.stdout:
        assert_one_line(refused)
    if "http://127.0.0.1:1" in away.stderr and command not in WITHOUT_TOKEN:  # it asks the server
        assert Unauthenticated.message in refused.stderr


@pytest.mark.parametrize("command", [*DISTINCT, "dev"])
def test_names_of_300_characters_are_refused_in_one_line(command: str, run: Commands) -> None:
    given = ARGUMENTS[by_object(command)]
    places = [at for at, word in enumerate(given) if not word.startswith("-")]
    for changed in [*[[place] for place in places], places]:
        words = [LONG if at in changed else word for at, word in enumerate(given)]
        if command == "dev" and 0 not in changed:
            continue  # it would serve
        done = run.run(command, words)
        if done.returncode and not done.stdout:  # invoke -o json answers in JSON
            assert_one_line(done, (1, 2))


@pytest.mark.parametrize("command", ["apps create", "apps inspect", "routes create", "invoke", "contexts use"])
def test_bytes_that_are_no_text_are_refused_in_one_line(command: str, run: Commands) -> None:
    words = ["\udcff" if not word.startswith("-") else word for word in ARGUMENTS[command]]
    assert_one_line(run.run(command, words), (1, 2))


@pytest.mark.parametrize("command", SERVING)
def test_a_node_whose_announcement_fails_ends(command: str, run: Commands) -> None:
    with _full() as full, _closed_pipe() as pipe:
        for stream in (full, pipe):
            done = subprocess.run(
                [HEARTH, command, *run.words(command)],
                env=run.cli.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 1
            assert "Traceback" not in done.stderr


@contextlib.contextmanager
def _full() -> Iterator[TextIO]:
    file = open("/dev/full", "w")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


class _Unreadable(io.RawIOBase):
    """A file whose disk fails."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextlib.contextmanager
def _closed_pipe() -> Iterator[TextIO]:
    reading, writing = os.pipe()
    os.close(reading)
    file = os.fdopen(writing, "w")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


@contextlib.contextmanager
def _strange_server(status: str = "200 OK", body: str = "[]") -> Iterator[str]:
    """Answers everything with the same, by default with a list."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    answer = f"{head}\r\n\r\n{body}".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
