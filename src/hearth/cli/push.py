"""hearth push."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from hearth import settings
from hearth.aio.clock import SystemClock
from hearth.cli.build import load
from hearth.cli.output import CommandError, say
from hearth.cli.progress import progress
from hearth.cli.session import session
from hearth.drivers.docker.build import push_image
from hearth.drivers.local.stored import image_store, name_of, resolve
from hearth.images.errors import ImageStoreError
from hearth.images.registry.references import InvalidReference, has_registry, parse
from hearth.nodes.registries import credentials
from hearth.settings import Settings


def push(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Folder with a func.yaml, or HOST[:PORT]/NAME:TAG.")
    ] = ".",
    registry: Annotated[
        str, typer.Option(help="Registry for images (default: from the context).", show_default=False)
    ] = "",
    image: Annotated[
        str,
        typer.Option(help="Stored image to push (default: NAME:TAG of the reference).", show_default=False),
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Verbose output.")] = False,
) -> None:
    """Push the Docker image of a folder, or an image of the image store, to a registry.

    Credentials for a reference come from DOCKER_AUTH, or from docker's configuration.

    Examples:
        hearth push --registry ghcr.io/me hello
        hearth push ghcr.io/me/hello:0.0.1 --image hello:0.0.1
    """
    if has_registry(target) and not Path(target).is_dir():
        _push_stored(target, image)
        return
    here = session(ctx)
    func = load(Path(target))
    built = func.image(registry or here.image_registry())
    if "/" not in built:
        raise CommandError(f"{built}: no registry; give --registry, or set FN_REGISTRY")
    with progress(f"pushing {built}"):
        push_image(built, verbose=verbose or here.verbose)
    say(f"Pushed {built}")


def _push_stored(target: str, image: str) -> None:
    """Copy an image of the data folder to the registry that a reference names."""
    wanted = settings.load()
    store = image_store(wanted.bundles)
    try:
        reference = parse(target)
        if reference.digest is not None:
            raise CommandError(f"{target}: a push needs a tag, not a digest")
        names = [image] if image else [target, target.partition("/")[2], target.rpartition("/")[2]]
        found = next((digest for name in names if (digest := resolve(store, name))), None)
        if found is None:
            raise CommandError(f"{name_of(names[-1])}: no such image in {store.root}; hearth images list shows them")
        with progress(f"pushing {target}"):
            sent = asyncio.run(_push(wanted, target, found))
    except (ImageStoreError, InvalidReference) as exc:
        raise CommandError(str(exc)) from exc
    say(f"Pushed {target} ({sent} bytes)")


async def _push(wanted: Settings, target: str, digest: str) -> int:
    from hearth.images.registry.client import Repository, new_session
    from hearth.images.registry.push import push as push_to

    reference = parse(target)
    auth = await credentials(wanted).find(reference.registry)
    async with new_session() as session:
        repository = Repository(session, target, reference, auth, SystemClock(), "pull,push")
        return await push_to(image_store(wanted.bundles), digest, repository, str(reference.tag))
