"""hearth version."""

from __future__ import annotations

import typer

from hearth import FN_VERSION, __version__
from hearth.cli.output import CommandError, Format, Output, say, show_json
from hearth.cli.session import session


def version(ctx: typer.Context, output: Output = Format.TABLE) -> None:
    """Print the versions of this command and of the server; ? where none answers.

    Examples:
        hearth version
    """
    server = "?"
    try:
        server = str(session(ctx).client().version().json()["version"])
    except (CommandError, ValueError, KeyError, TypeError):
        pass  # still print the version of the command
    if output is Format.JSON:
        show_json({"client": __version__, "fn": FN_VERSION, "server": server})
        return
    say(f"Client version: {__version__} (speaks Fn {FN_VERSION})")
    say(f"Server version: {server}")
