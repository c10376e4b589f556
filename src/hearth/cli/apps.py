"""hearth apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hearth.cli.fields import App, Config, Limit, Quota, entry, pairs, quota_changes
from hearth.cli.output import (
    CommandError,
    Format,
    ListFormat,
    ListOutput,
    Output,
    Yes,
    confirmed,
    say,
    show_json,
    show_list,
    show_property,
    show_table,
)
from hearth.cli.session import session

if TYPE_CHECKING:
    from hearth.cli.client import Record

apps = typer.Typer(no_args_is_help=True, help="Create, list, update and delete apps.")
config = typer.Typer(no_args_is_help=True, help="Manage the configuration that an app gives to its functions.")
apps.add_typer(config, name="config")

Key = Annotated[str, typer.Argument(metavar="KEY")]
Property = Annotated[str, typer.Argument(metavar="PROPERTY", help="Print only this property, such as config.KEY.")]


Auth = Annotated[
    str,
    typer.Option("--auth", help="What callers of its routes show: open, token, or default.", show_default=False),
]


@apps.command()
def create(ctx: typer.Context, app: App, config: Config = None, auth: Auth = "", quota: Quota = None) -> None:
    """Create an app.

    Examples:
        hearth apps create shop
        hearth apps create shop --config DB_URL=postgres://db/shop
    """
    made = session(ctx).client().create_app({"name": app, **_fields(config, auth, quota)})
    say(f"Successfully created app: {made['name']}")


@apps.command("list")
@apps.command("ls", hidden=True)
def list_apps(ctx: typer.Context, n: Limit = 100, output: ListOutput = ListFormat.TABLE) -> None:
    """List the apps.

    Examples:
        hearth apps list
        hearth apps list --output json
    """
    found = list(session(ctx).client().apps(n))
    show_list(found, output, ["NAME", "UPDATED"], lambda app: [app["name"], app["updated_at"]])


@apps.command("inspect")
@apps.command("i", hidden=True)
@apps.command("get", hidden=True)
def inspect_app(ctx: typer.Context, app: App, property: Property = "") -> None:
    """Show an app, or one of its properties, as JSON.

    Examples:
        hearth apps inspect shop
        hearth apps inspect shop config.DB_URL
    """
    show_property(session(ctx).client().app(app), property)


@apps.command()
def update(ctx: typer.Context, app: App, config: Config = None, auth: Auth = "", quota: Quota = None) -> None:
    """Update an app; K= without a value deletes a key of its configuration, or a quota.

    Examples:
        hearth apps update shop --config DB_URL=postgres://db/shop
        hearth apps update shop --quota memory_mib=512
    """
    session(ctx).client().update_app(app, _fields(config, auth, quota))
    say(f"app {app} updated")


@apps.command()
def delete(ctx: typer.Context, app: App, force: Yes = False) -> None:
    """Delete an app with its routes, calls and logs.

    Examples:
        hearth apps delete shop
        hearth apps delete shop --force
    """
    confirmed(f"Delete app {app} with its routes, calls and logs?", force)
    session(ctx).client().delete_app(app)
    say(f"app {app} deleted")


@config.command("set")
def set_value(ctx: typer.Context, app: App, key: Key, value: Annotated[str, typer.Argument()]) -> None:
    """Set a configuration value.

    Examples:
        hearth apps config set shop DB_URL postgres://db/shop
    """
    session(ctx).client().update_app(app, {"config": entry(key, value)})
    say(f"{app} {key} updated")


@config.command("unset")
@config.command("delete", hidden=True)
def unset_value(ctx: typer.Context, app: App, key: Key) -> None:
    """Delete a configuration value.

    Examples:
        hearth apps config unset shop DB_URL
    """
    session(ctx).client().update_app(app, {"config": {key: ""}})
    say(f"{app} {key} removed")


@config.command("get")
def get_value(ctx: typer.Context, app: App, key: Key) -> None:
    """Print a configuration value.

    Examples:
        hearth apps config get shop DB_URL
    """
    say(value_of(session(ctx).client().app(app), key))


@config.command("list")
def list_values(ctx: typer.Context, app: App, output: Output = Format.TABLE) -> None:
    """List the configuration.

    Examples:
        hearth apps config list shop
    """
    show_config(session(ctx).client().app(app).get("config", {}), output)


def _fields(config: list[str] | None, auth: str, quota: list[str] | None) -> Record:
    return {"config": pairs(config), **({"auth": auth} if auth else {}), **quota_changes(quota)}


def show_config(values: dict[str, str], output: Format) -> None:
    """Print a configuration, sorted by key."""
    if output is Format.JSON:
        show_json(values)
    else:
        show_table(["KEY", "VALUE"], sorted(values.items()))


def value_of(record: Record, key: str) -> str:
    """Return a value of the configuration of an app or route.

    Raises:
        CommandError: The key is not set.
    """
    values: dict[str, str] = record.get("config", {})
    if key not in values:
        raise CommandError(f"{key}: no such config key; {', '.join(sorted(values)) or 'none is set'}")
    return values[key]
