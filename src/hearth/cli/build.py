"""hearth build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hearth import projects, settings
from hearth.cli.session import session
from hearth.drivers.docker.build import build_image
from hearth.drivers.process.build import build_bundle

Driver = Annotated[
    Literal["process", "docker"] | None,
    typer.Option("--driver", help="A bundle (process) or an image (docker); FN_DRIVER if missing.", show_default=False),
]


def build(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder with a func.yaml.")] = Path(),
    driver: Driver = None,
    registry: Annotated[str, typer.Option(help="What goes before an image's name.", show_default=False)] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="An image: run every step again.")] = False,
    build_arg: Annotated[list[str] | None, typer.Option("--build-arg", help="NAME=VALUE for a Dockerfile.")] = None,
) -> None:
    """Make a bundle or an image of a folder; a route whose image is the printed reference runs it."""
    func = load(folder)
    if (driver or settings.load().driver) == "docker" or (driver is None and func.kind == "docker"):
        image = func.image(registry or session(ctx).image_registry())
        build_image(func, image, no_cache=no_cache, build_args=tuple(build_arg or ()))
        typer.echo(f"built image {image}")
    else:
        made = build_bundle(func, settings.load().bundles)
        typer.echo(f"built {func.image()} in {made.folder}")


def load(folder: Path) -> projects.FuncFile:
    """The function of a folder; what is odd in its file is said on stderr."""
    func = projects.load(folder)
    for warning in func.warnings:
        typer.echo(f"hearth: {warning}", err=True)
    return func
