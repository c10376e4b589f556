"""hearth init: create a new function."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hearth.cli.output import CommandError, say
from hearth.models.route import FORMATS
from hearth.projects import find
from hearth.projects.templates import Runtime, new_files


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the function; created if missing.")] = Path(),
    runtime: Annotated[
        Runtime | None,
        typer.Option(
            help="Language, your own Dockerfile, or any program (default: that of the folder's code, else python).",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Image name (default: name of the folder).", show_default=False)] = "",
    format: Annotated[str, typer.Option(help="Format: default, http, json or http-stream.", show_default=False)] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing func.yaml.")] = False,
) -> None:
    """Write a func.yaml and a function that answers.

    In a folder with code, write only the func.yaml for it: code is never overwritten.

    Examples:
        hearth init hello
        hearth init --runtime node shop/cart
        hearth init --name resize --runtime docker
    """
    if format and format not in FORMATS:
        raise typer.BadParameter(f"must be one of {', '.join(FORMATS)}, not {format!r}", param_hint="--format")
    if (there := find(folder)) is not None and not force:
        raise CommandError(f"{there}: already exists; --force overwrites it")
    files = new_files(folder, runtime, name or _name(folder), format)
    written: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            if file == "func.yaml" or not (folder / file).exists():
                (folder / file).write_text(text)
                written.append(file)
    except OSError as exc:
        raise CommandError(f"{folder}: {exc.strerror or exc}") from exc
    say(f"Function created in {folder}: {', '.join(written)}")


def _name(folder: Path) -> str:
    """Return the folder's name as the name of an image."""
    return re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-") or "function"
