"""hearth registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth.cli.fields import App
from hearth.cli.output import CommandError, ListFormat, ListOutput, Yes, confirmed, say, show_list
from hearth.cli.secrets import typed_secret
from hearth.cli.session import session
from hearth.models.errors import ApiError
from hearth.models.registry_login import RegistryLogin, valid_registry, validate_login

registries = typer.Typer(no_args_is_help=True, help="Store, list and remove the logins of an app at registries.")


def _registry(value: str) -> str:
    try:
        return valid_registry(value)
    except ApiError as exc:
        raise typer.BadParameter(exc.message) from exc


Registry = Annotated[
    str, typer.Argument(metavar="REGISTRY", help="Registry of images, such as ghcr.io.", callback=_registry)
]


@registries.command("set")
def set_login(
    ctx: typer.Context,
    app: App,
    registry: Registry,
    username: Annotated[str, typer.Option("--username", "-u", help="User name at the registry.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="File with the password (default: stdin).", show_default=False)
    ] = None,
) -> None:
    """Store a login, or change it. Images of the app are pulled with it. The password is a file, stdin, or typed.

    Examples:
        hearth registries set shop ghcr.io --username me < password.txt
    """
    login = RegistryLogin(username, typed_secret(f"Password of {username}", file))
    try:
        validate_login(login)
    except ApiError as exc:
        raise CommandError(exc.message) from exc
    version = session(ctx).client().put_login(app, registry, login.username, login.password)["version"]
    say(f"login at {registry} of app {app} stored, version {version}")


@registries.command("list")
@registries.command("ls", hidden=True)
def list_logins(ctx: typer.Context, app: App, output: ListOutput = ListFormat.TABLE) -> None:
    """List registries, versions and times. Nothing shows a user name or a password.

    Examples:
        hearth registries list shop
    """
    found = session(ctx).client().logins(app)
    show_list(
        found,
        output,
        ["REGISTRY", "VERSION", "UPDATED"],
        lambda one: [one["registry"], str(one["version"]), one["updated_at"]],
    )


@registries.command("remove")
@registries.command("delete", hidden=True)
def remove_login(ctx: typer.Context, app: App, registry: Registry, force: Yes = False) -> None:
    """Delete a login. Images that were pulled with it stay.

    Examples:
        hearth registries remove shop ghcr.io
    """
    confirmed(f"Delete login at {registry} of app {app}?", force)
    session(ctx).client().delete_login(app, registry)
    say(f"login at {registry} of app {app} deleted")
