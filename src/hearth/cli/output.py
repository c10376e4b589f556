"""What commands write: tables or JSON on stdout, one line for each note or error on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from hearth.models.errors import HearthError


class Format(StrEnum):
    """The two forms of output."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="As table or json.")]
Yes = Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")]

#: Wide enough that a table in a pipe is never folded.
_PIPE_WIDTH: Final = 100_000


class CommandError(HearthError):
    """A command cannot do what it was asked. The text says what, where, and what to do next."""


def say(text: str) -> None:
    """A line of the answer."""
    typer.echo(text)


def show_bytes(pieces: Iterable[bytes]) -> None:
    """A function's answer, as it is; on a terminal its last line ends, so that the prompt is not glued to it."""
    last = b""
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        last = piece or last
    if last and not last.endswith(b"\n") and sys.stdout.isatty():
        typer.echo()


def note(text: str) -> None:
    """A line that is no part of the answer."""
    typer.echo(text, err=True)


def show_json(value: Any) -> None:
    """A value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns; coloured on a terminal, unless NO_COLOR is set."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_property(value: Any, name: str) -> None:
    """One property of a record, named with dots; text as it is, all else as JSON.

    Raises:
        CommandError: There is none of this name.
    """
    for key in name.split(".") if name else ():
        if not isinstance(value, dict) or key not in value:
            raise CommandError(f"{name}: no such property")
        value = value[key]
    if isinstance(value, str):
        say(value)
    else:
        show_json(value)


def confirmed(question: str, force: bool) -> None:
    """Ask before something is lost, if somebody can answer; end the command on a no."""
    if not force and sys.stdin.isatty() and sys.stdout.isatty():
        typer.confirm(question, abort=True)
