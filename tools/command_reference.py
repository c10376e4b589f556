"""Write docs/cli.md from the command itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from hearth.cli.lazy import examples
from hearth.cli.main import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """# The command

<!-- Written by tools/command_reference.py; `make reference` renews it. -->

`hearth COMMAND --help`, or `-h`, shows the same, with defaults. Options of `hearth` itself come before the command:
`hearth --context prod apps list`. As in Fn's CLI, the verb may come first: `hearth create app shop` is
`hearth apps create shop`. There are short names: `app`, `a`, `route`, `r`, `call`, `ctx` for objects, `c`, `ls`, `i`,
`g`, `up`, `d`, `u`, `un` for verbs, and `bu`, `bm`, `dp`, `in`, `iv`, `p` for build, bump, deploy, init, invoke, push.

Exit status: 0 success, 1 an error, 2 wrong usage. An error is one line on stderr. Without a terminal, nothing is asked.

In a pipe, logs and answers are written byte for byte, and nothing is coloured. On a terminal, control characters in
them are made visible (`^[`), so that a function cannot change the terminal. `NO_COLOR` turns colours off.

`hearth --install-completion` installs completion for the shell: of commands and options, and of the names of apps and
the paths of routes on the server.

The server is the first of: `--api-url`, `FN_API_URL`, the context (`--context`, `FN_CONTEXT`, the one in use),
`http://localhost:8080`. Contexts are the files of the fn CLI, `~/.fn/config.yaml` and `~/.fn/contexts/NAME.yaml`.
The token (`FN_TOKEN`) is for the API: functions are shown it only by `hearth invoke --auth`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_group(typer.main.get_command(app), "hearth", None)]).rstrip("\n") + "\n"


def _group(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    yield from _command(command, name, context)
    for child in command.list_commands(context):
        shown = command.get_command(context, child)
        if shown.hidden or shown.rich_help_panel == "The same, verb first":
            continue
        _, found, _ = command.resolve_command(context, [child])
        if hasattr(found, "list_commands"):
            yield from _group(found, f"{name} {child}", None)
        else:
            yield from _command(found, f"{name} {child}", None)


def _command(command: Any, name: str, context: Any) -> Iterator[str]:
    context = context or command.make_context(name, [], resilient_parsing=True)
    usage = [piece.replace("[OPTIONS]", "") for piece in command.collect_usage_pieces(context)]
    yield f"## `{' '.join([name, *filter(None, usage)])}`\n"
    yield " ".join((command.help or "").split()) + "\n"
    rows = [parameter for parameter in command.params if not parameter.hidden and parameter.name not in _OF_TYPER]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from (_row(parameter) for parameter in rows)
        yield ""
    if lines := examples(command):
        yield "\n".join(["```sh", *lines, "```", ""])


_OF_TYPER = ("install_completion", "show_completion", "help")


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name.upper()).strip('[]')}`"
    text = (parameter.help or "").rstrip(".")
    if parameter.envvar:
        text += f" (`{parameter.envvar}`)"
    return f"| {names} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
