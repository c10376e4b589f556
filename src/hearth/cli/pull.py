"""hearth pull."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from hearth import settings
from hearth.aio.clock import SystemClock
from hearth.cli.output import CommandError, say
from hearth.cli.progress import progress
from hearth.images.errors import ImageStoreError
from hearth.images.registry.references import InvalidReference, has_registry
from hearth.nodes.registries import pulls
from hearth.settings import Settings


def pull(
    reference: Annotated[str, typer.Argument(metavar="REF", help="HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@DIGEST.")],
) -> None:
    """Copy an image from a registry into the image store of the data folder.

    Credentials come from DOCKER_AUTH, or from docker's configuration.

    Examples:
        hearth pull ghcr.io/me/hello:0.0.1
    """
    if not has_registry(reference):
        raise CommandError(f"{reference}: names no registry; write HOST[:PORT]/NAME[:TAG]")
    try:
        with progress(f"pulling {reference}"):
            digest = asyncio.run(_pull(settings.load(), reference))
    except (ImageStoreError, InvalidReference) as exc:
        raise CommandError(str(exc)) from exc
    except TimeoutError as exc:
        raise CommandError(f"{reference}: the pull took too long") from exc
    say(f"Pulled {reference} as {digest}")


async def _pull(wanted: Settings, reference: str) -> str:
    source = pulls(wanted, SystemClock())
    try:
        return await source.pull(reference)
    finally:
        await source.close()
