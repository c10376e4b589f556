"""hearth init: create a new function."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from hearth.cli.output import CommandError, say
from hearth.models.function import DEFAULT, HTTP_STREAM
from hearth.models.route import FORMATS
from hearth.projects import find

_PYTHON: Final = '''"""Greet the person named in the request body: {"name": "Ada"}."""

from hearth_fdk import function


@function
def greet(body: dict) -> dict:
    name = body.get("name", "World")
    print("greeting", name)  # goes to the call's log
    return {"message": f"Hello {name}"}
'''
_PYTHON_TEST: Final = """tests:
  - name: greets the world
    expect: {json: {message: Hello World}}
  - name: greets by name
    json: {name: Ada}
    expect: {json: {message: Hello Ada}}
"""
_DOCKERFILE: Final = """FROM debian:stable-slim
ENTRYPOINT ["tr", "a-z", "A-Z"]
"""


class Runtime(StrEnum):
    """The files of a new function."""

    PYTHON = "python"
    DOCKER = "docker"
    EXEC = "exec"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the function; created if missing.")] = Path(),
    runtime: Annotated[Runtime, typer.Option(help="Python, your own Dockerfile, or any program.")] = Runtime.PYTHON,
    name: Annotated[str, typer.Option(help="Image name (default: name of the folder).", show_default=False)] = "",
    format: Annotated[str, typer.Option(help="Format: default, http, json or http-stream.", show_default=False)] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write a func.yaml and a function that answers."""
    if format and format not in FORMATS:
        raise typer.BadParameter(f"must be one of {', '.join(FORMATS)}, not {format!r}", param_hint="--format")
    if (there := find(folder)) is not None and not force:
        raise CommandError(f"{there}: already exists; --force writes over it")
    files = _files(runtime, name or _name(folder), format)
    for file in files:
        if (folder / file).exists() and not force:
            raise CommandError(f"{folder / file}: already exists; --force writes over it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    except OSError as exc:
        raise CommandError(f"{folder}: {exc.strerror or exc}") from exc
    say(f"Function made in {folder}: {', '.join(files)}")


def _name(folder: Path) -> str:
    """Return the folder's name as the name of an image."""
    return re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-") or "function"


def _files(runtime: Runtime, name: str, format_name: str) -> dict[str, str]:
    chosen = format_name or (HTTP_STREAM if runtime is Runtime.PYTHON else DEFAULT)
    head = f"name: {name}\nversion: 0.0.1\nruntime: {runtime.value}\nformat: {chosen}\n"
    if runtime is Runtime.PYTHON:
        return {"func.yaml": head, "func.py": _PYTHON, "test.yaml": _PYTHON_TEST}
    if runtime is Runtime.DOCKER:
        return {"func.yaml": head, "Dockerfile": _DOCKERFILE}
    return {"func.yaml": f"{head}cmd: [tr, a-z, A-Z]\n"}
