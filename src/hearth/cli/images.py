"""hearth images: the image store of this machine's data folder."""

from __future__ import annotations

import typer

from hearth import settings
from hearth.cli.output import CommandError, ListFormat, ListOutput, note, say, show_list
from hearth.cli.progress import progress
from hearth.drivers.local.stored import image_store
from hearth.images.errors import ImageStoreError
from hearth.images.layout import ImageStore

images = typer.Typer(no_args_is_help=True, help="List and check the images of the data folder.")


@images.command("list")
@images.command("ls", hidden=True)
def list_images(output: ListOutput = ListFormat.TABLE) -> None:
    """List the names of images, with what they mean now and how large their layers are.

    Examples:
        hearth images list
        hearth images list --output json
    """
    store = _store()
    rows: list[dict[str, str | int]] = []
    for entry in store.entries():
        try:
            image = store.image(entry.digest)
            size = sum(layer.size for layer in image.manifest.layers)
        except ImageStoreError as exc:
            note(f"hearth: {entry.name or entry.digest}: {exc}")
            size = 0
        rows.append({"name": entry.name, "digest": entry.digest, "bytes": size})
    show_list(rows, output, ("name", "digest", "bytes"), lambda row: [str(value) for value in row.values()])


@images.command()
def verify() -> None:
    """Read everything in the image store again, and report what is damaged or missing.

    Examples:
        hearth images verify
    """
    store = _store()
    with progress(f"reading {store.root}"):
        faults = list(store.verify()) if store.exists else []
    for fault in faults:
        say(f"{fault.subject}: {fault.reason}")
    if faults:
        raise CommandError(f"{store.root}: {len(faults)} faults; deploy the functions of these images again")
    say(f"{store.root}: no damage")


def _store() -> ImageStore:
    return image_store(settings.load().bundles)
