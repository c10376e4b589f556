"""hearth apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hearth.cli.fields import App, Config, Limit, pairs
from hearth.cli.output import CommandError, Format, Output, Yes, confirmed, say, show_json, show_property, show_table
from hearth.cli.session import session

if TYPE_CHECKING:
    from hearth.cli.client import Record

apps = typer.Typer(no_args_is_help=True, help="Make, list, change and delete apps.")
config = typer.Typer(no_args_is_help=True, help="The configuration that an app gives to all of its functions.")
apps.add_typer(config, name="config")

Key = Annotated[str, typer.Argument(metavar="KEY")]
Property = Annotated[str, typer.Argument(metavar="PROPERTY", help="Only this one, as config.KEY.")]


@apps.command()
def create(ctx: typer.Context, app: App, config: Config = None) -> None:
    """Make an app."""
    made = session(ctx).client().create_app({"name": app, "config": pairs(config)})
    say(f"Successfully created app: {made['name']}")


@apps.command("list")
@apps.command("ls", hidden=True)
def list_apps(ctx: typer.Context, n: Limit = 100, output: Output = Format.TABLE) -> None:
    """List the apps."""
    found = list(session(ctx).client().apps(n))
    if output is Format.JSON:
        show_json(found)
    else:
        show_table(["NAME", "UPDATED"], ([app["name"], app["updated_at"]] for app in found))


@apps.command("inspect")
@apps.command("i", hidden=True)
@apps.command("get", hidden=True)
def inspect_app(ctx: typer.Context, app: App, property: Property = "") -> None:
    """Show an app, or one of its properties, as JSON."""
    show_property(session(ctx).client().app(app), property)


@apps.command()
def update(ctx: typer.Context, app: App, config: Config = None) -> None:
    """Change an app's configuration; K= with nothing after it deletes a key."""
    session(ctx).client().update_app(app, {"config": pairs(config)})
    say(f"app {app} updated")


@apps.command()
def delete(ctx: typer.Context, app: App, force: Yes = False) -> None:
    """Delete an app with its routes, calls and logs."""
    confirmed(f"Delete app {app} with its routes, calls and logs?", force)
    session(ctx).client().delete_app(app)
    say(f"app {app} deleted")


@config.command("set")
def set_value(ctx: typer.Context, app: App, key: Key, value: Annotated[str, typer.Argument()]) -> None:
    """Set a value."""
    session(ctx).client().update_app(app, {"config": {key: value}})
    say(f"{app} {key} updated")


@config.command("unset")
@config.command("delete", hidden=True)
def unset_value(ctx: typer.Context, app: App, key: Key) -> None:
    """Take a value away."""
    session(ctx).client().update_app(app, {"config": {key: ""}})
    say(f"{app} {key} removed")


@config.command("get")
def get_value(ctx: typer.Context, app: App, key: Key) -> None:
    """Print a value."""
    say(value_of(session(ctx).client().app(app), key))


@config.command("list")
def list_values(ctx: typer.Context, app: App, output: Output = Format.TABLE) -> None:
    """List the values."""
    show_config(session(ctx).client().app(app).get("config", {}), output)


def show_config(values: dict[str, str], output: Format) -> None:
    """A configuration, sorted by key."""
    if output is Format.JSON:
        show_json(values)
    else:
        show_table(["KEY", "VALUE"], sorted(values.items()))


def value_of(record: Record, key: str) -> str:
    """A value of an app's or a route's configuration.

    Raises:
        CommandError: There is none of this key.
    """
    values: dict[str, str] = record.get("config", {})
    if key not in values:
        raise CommandError(f"{key}: no such config key; {', '.join(sorted(values)) or 'none is set'}")
    return values[key]
