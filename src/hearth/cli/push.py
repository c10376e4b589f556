"""hearth push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth.cli.build import load
from hearth.cli.output import CommandError, say
from hearth.cli.progress import progress
from hearth.cli.session import session
from hearth.drivers.docker.build import push_image


def push(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml.")] = Path(),
    registry: Annotated[
        str, typer.Option(help="Registry for images (default: from the context).", show_default=False)
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Verbose output.")] = False,
) -> None:
    """Push the image that hearth build has made of a folder.

    Examples:
        hearth push --registry ghcr.io/me hello
    """
    here = session(ctx)
    func = load(folder)
    image = func.image(registry or here.image_registry())
    if "/" not in image:
        raise CommandError(f"{image}: no registry; give --registry, or set FN_REGISTRY")
    with progress(f"pushing {image}"):
        push_image(image, verbose=verbose or here.verbose)
    say(f"Pushed {image}")
