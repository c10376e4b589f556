"""The command's groups, put together."""

from __future__ import annotations

import sys

import typer

from hearth import FN_VERSION, __version__
from hearth.cli.build import build
from hearth.cli.check import check
from hearth.cli.dev import dev
from hearth.cli.doctor import doctor
from hearth.cli.migrate import migrate
from hearth.cli.run import run
from hearth.cli.start import start
from hearth.models.errors import HearthError
from hearth.telemetry import logs, redaction

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(start)
app.command()(build)
app.command()(run)
app.command()(dev)
app.command("test")(check)
app.command()(doctor)
app.add_typer(migrate, name="migrate")


@app.command()
def version() -> None:
    """Print the versions."""
    typer.echo(f"hearth {__version__} (speaks Fn {FN_VERSION})")


@app.callback()
def hearth() -> None:
    """Run functions that live in containers."""


def main() -> None:
    """Run the command; a known error is one line on stderr and exit status 1."""
    logs.configure()  # first of all, so that every line has the same form
    try:
        app()
    except HearthError as exc:
        logs.close()  # what led to it comes before it
        typer.echo(redaction.redact(f"hearth: {exc}"), err=True)
        sys.exit(1)
    except KeyboardInterrupt:  # before the node takes the signals itself
        sys.exit(130)
