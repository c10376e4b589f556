"""hearth build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth import settings
from hearth.drivers.process import bundle


def build(folder: Annotated[Path, typer.Argument(help="A folder with a func.yaml.")] = Path()) -> None:
    """Make a bundle of a folder; a route whose image is the printed reference runs it."""
    reference, made = bundle.build(folder, settings.load().bundles)
    typer.echo(f"built {reference} in {made.folder}")
