"""The command helps: help with examples everywhere, suggestions for typing errors, completion of names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.support.cli import Cli
from tests.support.served_api import APP, ROUTE, ServedApi, served_node

from hearth.cli.lazy import examples
from hearth.cli.main import app

#: What stands before and behind a command in the line of a shell.
_BEFORE = re.compile(r"^(?:[A-Z_]+=\S+ |echo .* \| )*")
_BEHIND = re.compile(r" < \S+$")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    """An API with an app, a route, a call and its log."""
    with served_node(tmp_path_factory.mktemp("api")) as served:
        served.seed()
        yield served


def everything(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every group and command, by its words."""
    group = group if group is not None else typer.main.get_command(app)
    yield words, group
    context = group.make_context("hearth", [], resilient_parsing=True)
    for name in group.list_commands(context):
        if group.get_command(context, name).hidden:
            continue
        _, found, _ = group.resolve_command(context, [name])
        if hasattr(found, "list_commands"):
            yield from everything(found, (*words, name))
        else:
            yield (*words, name), found


HELPS = dict(everything())


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_a_help_of_80_columns_ends_with_whole_examples(words: tuple[str, ...], tmp_path: Path) -> None:
    shown = [Cli("", tmp_path)(*words, option, COLUMNS="80", TERM="dumb") for option in ("-h", "--help")]
    assert shown[0] == shown[1]
    lines = [line.strip() for line in shown[0].splitlines()]
    own = lines[lines.index("Examples:") + 1 :]
    assert [line for line in own if line] == examples(HELPS[words])
    assert own


@pytest.mark.parametrize(
    "line", sorted({line for command in HELPS.values() for line in examples(command)}), ids=lambda line: line[:60]
)
def test_an_example_is_a_command_that_there_is(line: str) -> None:
    words = shlex.split(_BEHIND.sub("", _BEFORE.sub("", line)))
    assert words.pop(0) == "hearth"
    command: Any = typer.main.get_command(app)
    context = None
    while True:
        context = command.make_context("hearth", words, parent=context)  # refuses what it does not know
        if not hasattr(command, "list_commands"):
            break
        rest = words[-1 - len(context.args) :]
        if len(rest) == len(context.args):  # hearth logs APP is hearth logs get APP
            rest = ["get", *rest]
        _, command, words = command.resolve_command(context, rest)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["depoly"], "No such command 'depoly'. Did you mean 'deploy'? See hearth --help"),
        (["app", "lits"], "No such command 'lits'. Did you mean 'list'"),
        (["create", "aps"], "No such command 'aps'. Did you mean 'apps'"),
        (["deploy", "--ap", "x"], "No such option: --ap. Did you mean --app? See hearth deploy --help"),
        (["apps", "create", "a", "--confg", "K=V"], "No such option: --confg. Did you mean --config?"),
        (["xyzzy"], "No such command 'xyzzy'; see hearth --help"),
        (["apps", "list", "--xyzzy"], "No such option: --xyzzy; see hearth apps list --help"),
    ],
)
def test_a_typing_error_is_answered_with_what_was_meant(typed: list[str], meant: str, tmp_path: Path) -> None:
    assert meant in Cli("", tmp_path).fails(2, *typed)


def completed(cli: Cli, line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    words: dict[str, Any] = {
        "_HEARTH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = cli.run(**words)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("hearth apps inspect se", [APP]),
        ("hearth apps inspect x", []),
        (f"hearth routes inspect {APP} /he", [f"/{ROUTE}"]),
        (f"hearth invoke {APP} ", [f"/{ROUTE}"]),
        (f"hearth inspect route {APP} /", [f"/{ROUTE}"]),
        (f"hearth calls list {APP} --path /", [f"/{ROUTE}"]),
        ("hearth deploy --app se", [APP]),
        ("hearth rollback se", [APP]),
    ],
)
def test_names_of_apps_and_routes_are_completed(line: str, names: list[str], server: ServedApi, tmp_path: Path) -> None:
    assert completed(Cli(server.url, tmp_path), line) == names
    server_in_line = line.replace("hearth ", f"hearth --api-url {server.url} ", 1)
    assert completed(Cli("http://127.0.0.1:1", tmp_path), server_in_line) == names


def test_no_server_completes_to_nothing(tmp_path: Path) -> None:
    assert completed(Cli("http://127.0.0.1:1", tmp_path), "hearth apps inspect se") == []
