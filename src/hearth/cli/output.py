"""Print the output of commands: tables or JSON on stdout, one line per note or error on stderr."""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple, TextIO

import typer

from hearth.models.errors import HearthError


class Format(StrEnum):
    """The two forms of output."""

    TABLE = "table"
    JSON = "json"


class ListFormat(StrEnum):
    """The forms of lists."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[Format, typer.Option("--output", "-o", help="Output format: table or json.")]
ListOutput = Annotated[ListFormat, typer.Option("--output", "-o", help="Output format: table, json, yaml or name.")]
Yes = Annotated[bool, typer.Option("--force", "-f", help="Skip confirmation.")]

#: Wide enough that a table in a pipe is never folded.
_PIPE_WIDTH: Final = 100_000
#: C0 controls as ``cat -v`` shows them; C1 controls and changes of the writing direction by their code points.
_VISIBLE: Final = {
    **{code: f"^{chr(code + 0x40)}" for code in range(0x20) if chr(code) not in "\n\t"},
    **{code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}


class CommandError(HearthError):
    """A command cannot do what it was asked. The text says what, where, and what to do next."""


def say(text: str) -> None:
    """Write a line of the answer."""
    _write(sys.stdout, f"{text}\n")


def note(text: str) -> None:
    """Write a line that is not part of the answer to stderr."""
    _write(sys.stderr, f"{text}\n")


def show_log(log: bytes) -> None:
    """Write what a function logged; its last line ends in any case."""
    show_bytes([log if not log or log.endswith(b"\n") else log + b"\n"])


def note_log(log: bytes) -> None:
    """Write what a function logged to stderr."""
    _write_bytes(sys.stderr, [log])


def show_bytes(pieces: Iterable[bytes]) -> None:
    """Write a function's answer unchanged; on a terminal, end its last line and neutralise control characters."""
    last = _write_bytes(sys.stdout, pieces)
    if last and not last.endswith(b"\n") and is_terminal(sys.stdout):
        say("")


def show_json(value: Any) -> None:
    """Write a value as indented JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person sees what is written to this stream, or types what is read from it."""
    return stream is not None and stream.isatty()


def visible(text: str) -> str:
    """Return the text with control characters replaced by visible ones, all but line ends and tabs.

    Otherwise the author of the text could move the cursor, change the window's title, or hide a part of it. Characters
    that JSON leaves unescaped are written as JSON's escapes.
    """
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def _write(stream: TextIO | None, text: str) -> None:
    _write_styled(stream, visible(text) if is_terminal(stream) else text)


def _write_styled(stream: TextIO | None, text: str) -> None:
    """Write text at once, with the control characters in it. Characters that the encoding lacks are escaped.

    Raises:
        OSError: The stream is closed or full.
    """
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    encoding = stream.encoding or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


def _write_bytes(stream: TextIO | None, pieces: Iterable[bytes]) -> bytes:
    """Write pieces as they come; return the last one that is not empty."""
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    decoder = codecs.getincrementaldecoder("utf-8")("replace") if is_terminal(stream) else None
    last = b""
    for piece in pieces:
        last = piece or last
        if decoder is not None:
            _write(stream, decoder.decode(piece))
        else:
            stream.buffer.write(piece)
            stream.buffer.flush()
    if decoder is not None:
        _write(stream, decoder.decode(b"", final=True))
    return last


class Styled(NamedTuple):
    """A cell of a table with a style of rich, such as ``red``."""

    text: str
    style: str


def terminal_width() -> int:
    """Return the columns of the terminal that stdout is; 0 without a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0


def short_time(seconds: float) -> str:
    """Return a duration for a person: ``12 ms``, ``1.5 s``, ``2 m 5 s``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest} s"


def show_table(
    head: Sequence[str], rows: Iterable[Sequence[str | Styled]], *, fold: Container[int] | None = None
) -> None:
    """Write aligned columns; coloured on a terminal, unless NO_COLOR is set.

    Args:
        head: Names of the columns.
        rows: Cells of each row.
        fold: Numbers of the columns that a narrow terminal folds; by default all.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, overflow="fold", no_wrap=fold is not None and number not in fold)
    for row in rows:
        cells = (cell if isinstance(cell, Styled) else Styled(cell, "") for cell in row)
        table.add_row(*(Text(visible(text) if console.is_terminal else text, style) for text, style in cells))
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    _write_styled(sys.stdout, "".join(f"{line}\n" for line in lines))


def show_list(
    found: Sequence[Any],
    output: ListFormat,
    head: Sequence[str],
    row: Callable[[Any], Sequence[str | Styled]],
    *,
    fold: Container[int] | None = None,
    name_column: int = 0,
) -> None:
    """Write what a command has found: as JSON or YAML, as a table, or as names, one on each line.

    Args:
        found: The items, as JSON shows them.
        output: The form.
        head: Names of the columns of the table.
        row: Returns the cells of an item.
        fold: See :func:`show_table`.
        name_column: Column of the name by which other commands take an item.
    """
    match output:
        case ListFormat.JSON:
            show_json(found)
        case ListFormat.YAML:
            import yaml  # takes a while, and few commands need it

            say(yaml.safe_dump(list(found), allow_unicode=True, sort_keys=False).rstrip("\n"))
        case ListFormat.NAME:
            for item in found:
                cell = row(item)[name_column]
                say(cell.text if isinstance(cell, Styled) else cell)
        case ListFormat.TABLE:
            show_table(head, map(row, found), fold=fold)


def show_property(value: Any, name: str) -> None:
    """Print a record, or its property of a dotted name; text as it is, all else as JSON.

    Raises:
        CommandError: There is no such property.
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
    """Ask before something is deleted, if stdin is a terminal; end the command on a no."""
    if not force and is_terminal(sys.stdin) and is_terminal(sys.stdout):
        typer.confirm(question, abort=True)
