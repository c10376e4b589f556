"""hearth secrets."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from hearth import settings as settings_
from hearth.cli.data_lock import data_lock
from hearth.cli.fields import App
from hearth.cli.output import (
    CommandError,
    ListFormat,
    ListOutput,
    Yes,
    confirmed,
    is_terminal,
    note,
    say,
    show_list,
)
from hearth.cli.session import session
from hearth.models.errors import MAX_SECRET_BYTES, ApiError, StartUpError
from hearth.models.secret import validate_secret_name, validate_secret_value
from hearth.telemetry import logs

secrets = typer.Typer(no_args_is_help=True, help="Store, list and remove the secrets of an app.")

#: More than a value may have, so that one that is too long is recognised.
_MOST_BYTES: Final = 2 * MAX_SECRET_BYTES


def _secret_name(value: str) -> str:
    try:
        validate_secret_name(value)
    except ApiError as exc:
        raise typer.BadParameter(exc.message) from exc
    return value


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the secret.", callback=_secret_name)]


@secrets.command("set")
def set_secret(
    ctx: typer.Context,
    app: App,
    name: Name,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="File with the value (default: stdin).", show_default=False)
    ] = None,
) -> None:
    """Store a secret, or change its value. The value is a file, stdin, or typed; one line break at its end is dropped.

    There is no argument for it: every user of this machine can read arguments.

    Examples:
        hearth secrets set shop STRIPE_KEY
        hearth secrets set shop TLS_KEY --file key.pem
    """
    value = typed_secret(f"Value of {name}", file)
    version = session(ctx).client().put_secret(app, name, value)["version"]
    say(f"secret {name} of app {app} stored, version {version}")


@secrets.command("list")
@secrets.command("ls", hidden=True)
def list_secrets(ctx: typer.Context, app: App, output: ListOutput = ListFormat.TABLE) -> None:
    """List names, versions and times. Nothing shows a value.

    Examples:
        hearth secrets list shop
    """
    found = session(ctx).client().secrets(app)
    show_list(
        found,
        output,
        ["NAME", "VERSION", "UPDATED"],
        lambda one: [one["name"], str(one["version"]), one["updated_at"]],
    )


@secrets.command("remove")
@secrets.command("delete", hidden=True)
def remove_secret(ctx: typer.Context, app: App, name: Name, force: Yes = False) -> None:
    """Delete a secret. Functions that name it cannot be called until it is stored again.

    Examples:
        hearth secrets remove shop STRIPE_KEY
    """
    confirmed(f"Delete secret {name} of app {app}?", force)
    session(ctx).client().delete_secret(app, name)
    say(f"secret {name} of app {app} deleted")


@secrets.command("rotate-key")
def rotate_key() -> None:
    """Encrypt all secrets of the database with a new key, with the settings of its node, which may run meanwhile.

    With FN_SECRET_KEY or FN_SECRET_KEY_FILE, the first of their keys encrypts. Exit status 1: some are unreadable.

    Examples:
        hearth secrets rotate-key
    """
    logs.configure("warning")
    wanted = settings_.load()
    if wanted.node_type == settings_.RUNNER:
        raise StartUpError("FN_NODE_TYPE=runner: a runner has no keys; run this with the variables of an API node")
    with data_lock(wanted.data, "secret-key.lock") as note_owner:  # two at once would drop each other's key
        note_owner("which encrypts secrets with a new key")
        are_unreadable = asyncio.run(_rotate(wanted))
    if are_unreadable:
        raise typer.Exit(1)


async def _rotate(wanted: settings_.Settings) -> bool:
    """Rotate, and report it; return whether some secrets cannot be decrypted."""
    from hearth.nodes.stores import keyring
    from hearth.stores.secrets.vault import Vault
    from hearth.stores.sql import open_datastore

    datastore = await open_datastore(wanted.database, wait_s=wanted.db_wait_s)
    try:
        done = await Vault(datastore, keyring(wanted)).rotate()
    finally:
        await datastore.close()
    say(f"{done.resealed} secrets encrypted again; key {done.key_id}")
    for secret in done.unreadable:
        note(f"hearth: secret {secret.name} of app {secret.app_name} cannot be decrypted; store it again")
    return bool(done.unreadable)


def typed_secret(prompt: str, file: Path | None) -> str:
    """Return a secret value from a file, stdin or the keyboard; one line break at its end is dropped.

    Raises:
        CommandError: It cannot be the value of a secret.
    """
    if file is not None:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES)
    elif sys.stdin is None:
        data = b""
    elif is_terminal(sys.stdin):
        data = str(typer.prompt(prompt, hide_input=True, err=True)).encode()
    else:
        data = sys.stdin.buffer.read(_MOST_BYTES)
    place = str(file) if file is not None else "stdin"
    try:
        value = data.decode()
    except UnicodeDecodeError:
        raise CommandError(f"{place}: the value must be UTF-8; encode other bytes, in base64 for example") from None
    value = value.removesuffix("\n").removesuffix("\r")
    try:
        validate_secret_value(value)
    except ApiError as exc:
        raise CommandError(f"{place}: {exc.message}") from exc
    return value
