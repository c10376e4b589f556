"""hearth bump."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth import projects
from hearth.cli.output import say


def bump(folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml.")] = Path()) -> None:
    """Raise the last number of a function's version; all else in its file stays.

    Examples:
        hearth bump
        hearth bump hello
    """
    say(f"Bumped to version {projects.bump(folder)}")
