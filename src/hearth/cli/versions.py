"""hearth versions and hearth rollback: the history of a route, and the way back."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from hearth.cli.fields import App, Path
from hearth.cli.output import CommandError, ListFormat, ListOutput, note, say, show_list
from hearth.cli.session import session
from hearth.models.image import pinned


def versions(ctx: typer.Context, app: App, path: Path, output: ListOutput = ListFormat.TABLE) -> None:
    """List the last 20 versions of a route, newest first. Version 0 is the present one.

    Examples:
        hearth versions demo /hello
    """
    found = session(ctx).client().versions(app, path)
    numbers = itertools.count()
    show_list(
        found,
        output,
        ["VERSION", "IMAGE", "DIGEST", "CONFIG", "BY", "CREATED"],
        lambda one: [
            str(next(numbers)),
            one["image"].partition("@")[0],
            one["digest"].partition(":")[2][:12],
            one["config_hash"][:8],
            one["principal"],
            one["created_at"],
        ],
    )


def rollback(
    ctx: typer.Context,
    app: App,
    path: Path,
    version: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of versions to go back.")] = 1,
) -> None:
    """Give a route the image of an earlier version; its configuration stays as it is.

    The rollback is a version, too: the next one with the same number goes back to where it came from.

    Examples:
        hearth rollback demo /hello
        hearth rollback demo /hello 3
    """
    client = session(ctx).client()
    path = path if path.startswith("/") else f"/{path}"
    found = client.versions(app, path)
    if len(found) <= version:
        raise CommandError(
            f"{app}{path}: has {max(0, len(found) - 1)} earlier versions; hearth versions {app} {path} lists them"
        )
    target = found[version]
    image = pinned(target["image"], target["digest"])
    client.update_route(app, path, {"image": image})
    if not target["digest"]:
        note(f"hearth: {target['image']} has no digest: it runs what its tag means now")
    if target["config_hash"] != found[0]["config_hash"]:
        note("hearth: the configuration of that version was another one; it stays as it is")
    say(f"Rolled back {app}{path} to {image}")
