"""hearth build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth import projects, settings
from hearth.cli.output import note, say
from hearth.cli.progress import progress
from hearth.cli.session import session
from hearth.drivers.docker.build import build_image
from hearth.drivers.local.build import build_bundle
from hearth.projects import sources

Driver = Annotated[
    settings.DriverName | None,
    typer.Option(
        "--driver", help="Build a bundle (process) or an image (docker) (default: FN_DRIVER).", show_default=False
    ),
]
FollowOutside = Annotated[
    bool,
    typer.Option("--follow-outside", help="Copy the content of links that leave the folder.", show_default=False),
]


def build(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml.")] = Path(),
    driver: Driver = None,
    registry: Annotated[
        str, typer.Option(help="Registry for images (default: from the context).", show_default=False)
    ] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build images without cache.")] = False,
    build_arg: Annotated[
        list[str] | None, typer.Option("--build-arg", help="Build argument NAME=VALUE for a Dockerfile.")
    ] = None,
    follow_outside: FollowOutside = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Install requirements again, for newer versions.", show_default=False)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List files left out of the build.")] = False,
) -> None:
    """Build a bundle or an image from a folder, and print its reference for a route's image.

    A route with the reference name:tag runs the last build of that tag at its next start; one with
    name:tag@sha256:DIGEST always runs this build.

    Examples:
        hearth build
        hearth build --driver docker --registry ghcr.io/me hello
    """
    func = load(folder)
    if verbose or session(ctx).verbose:
        list_left_out(func, follow_outside)
    if (driver or settings.load().driver) == "docker" or (driver is None and func.kind == "docker"):
        image = func.image(registry or session(ctx).image_registry())
        with progress(f"building {image}"):
            built = build_image(
                func, image, no_cache=no_cache, build_args=tuple(build_arg or ()), follow_outside=follow_outside
            )
        say(f"built image {image}")
        note(f"pinned as {built.pinned}")
    else:
        with progress(f"building {func.image()}"):
            made = build_bundle(func, settings.load().bundles, follow_outside=follow_outside, upgrade=upgrade)
        say(f"built {func.image()} in {made.folder}")
        note(f"pinned as {made.pin(func.image())}")


def load(folder: Path) -> projects.FuncFile:
    """Return the function of a folder; print warnings about its file to stderr."""
    func = projects.load(folder)
    warn(func)
    return func


def warn(func: projects.FuncFile) -> None:
    """Report what is odd in a function's file."""
    for warning in func.warnings:
        note(f"hearth: {warning}")


def list_left_out(func: projects.FuncFile, follow_outside: bool) -> None:
    """List the files and folders that a build does not take."""
    if func.kind != "docker":  # its .dockerignore says it
        for path in sources.scan(func.folder, follow_outside=follow_outside).left_out:
            note(f"left out: {path}")
