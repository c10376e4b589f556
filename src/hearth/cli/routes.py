"""hearth routes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hearth.cli.apps import Key, Property, show_config, value_of
from hearth.cli.fields import App, Config, Limit, Path, header_lists, pairs
from hearth.cli.output import Format, Output, Yes, confirmed, say, show_json, show_property, show_table
from hearth.cli.session import session

routes = typer.Typer(no_args_is_help=True, help="Make, list, change and delete routes.")
config = typer.Typer(no_args_is_help=True, help="The configuration of one route; it goes before the app's.")
routes.add_typer(config, name="config")

Image = Annotated[str, typer.Option("--image", "-i", help="Image or bundle that runs.", show_default=False)]
Memory = Annotated[int, typer.Option("--memory", "-m", min=0, help="MiB of memory.", show_default=False)]
Cpus = Annotated[str, typer.Option("--cpus", help="As 0.5 or 500m.", show_default=False)]
Type = Annotated[str, typer.Option("--type", "-t", help="sync or async.", show_default=False)]
FunctionFormat = Annotated[str, typer.Option("--format", help="default, http or json.", show_default=False)]
Timeout = Annotated[int, typer.Option("--timeout", min=0, help="Seconds a call may take.", show_default=False)]
IdleTimeout = Annotated[
    int, typer.Option("--idle-timeout", min=0, help="Seconds an idle container stays.", show_default=False)
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--headers", metavar="K=V;V", help="A header of every answer; may be repeated.", show_default=False),
]


@routes.command()
def create(
    ctx: typer.Context,
    app: App,
    path: Path,
    image_argument: Annotated[str, typer.Argument(metavar="IMAGE", help="Instead of --image.")] = "",
    image: Image = "",
    memory: Memory = 0,
    cpus: Cpus = "",
    type: Type = "",
    format: FunctionFormat = "",
    timeout: Timeout = 0,
    idle_timeout: IdleTimeout = 0,
    config: Config = None,
    headers: Headers = None,
) -> None:
    """Make a route; what is not given gets the server's default."""
    fields = _fields(image or image_argument, memory, cpus, type, format, timeout, idle_timeout, config, headers)
    if "image" not in fields:
        raise typer.BadParameter("name what it runs: hearth routes create APP PATH IMAGE", param_hint="IMAGE")
    made = session(ctx).client().create_route(app, {"path": path if path.startswith("/") else f"/{path}", **fields})
    say(f"{made['path']} created with {made['image']}")


@routes.command("list")
@routes.command("ls", hidden=True)
def list_routes(
    ctx: typer.Context,
    app: App,
    image: Annotated[str, typer.Option("--image", "-i", help="Only those of this image.")] = "",
    n: Limit = 100,
    output: Output = Format.TABLE,
) -> None:
    """List the routes of an app."""
    client = session(ctx).client()
    found = list(client.routes(app, n, image))
    if output is Format.JSON:
        show_json(found)
        return
    rows = ([route["path"], route["image"], f"{client.url}/r/{app}{route['path']}"] for route in found)
    show_table(["PATH", "IMAGE", "ENDPOINT"], rows)


@routes.command("inspect")
@routes.command("i", hidden=True)
@routes.command("get", hidden=True)
def inspect_route(ctx: typer.Context, app: App, path: Path, property: Property = "") -> None:
    """Show a route, or one of its properties, as JSON."""
    show_property(session(ctx).client().route(app, path), property)


@routes.command()
def update(
    ctx: typer.Context,
    app: App,
    path: Path,
    image: Image = "",
    memory: Memory = 0,
    cpus: Cpus = "",
    type: Type = "",
    format: FunctionFormat = "",
    timeout: Timeout = 0,
    idle_timeout: IdleTimeout = 0,
    config: Config = None,
    headers: Headers = None,
) -> None:
    """Change a route; what is not given stays."""
    changes = _fields(image, memory, cpus, type, format, timeout, idle_timeout, config, headers)
    session(ctx).client().update_route(app, path, changes)
    say(f"{app} {path} updated")


@routes.command()
def delete(ctx: typer.Context, app: App, path: Path, force: Yes = False) -> None:
    """Delete a route; the records of its calls stay."""
    confirmed(f"Delete route {path} of {app}?", force)
    session(ctx).client().delete_route(app, path)
    say(f"{app} {path} deleted")


@config.command("set")
def set_value(ctx: typer.Context, app: App, path: Path, key: Key, value: Annotated[str, typer.Argument()]) -> None:
    """Set a value."""
    session(ctx).client().update_route(app, path, {"config": {key: value}})
    say(f"{app} {path} {key} updated")


@config.command("unset")
@config.command("delete", hidden=True)
def unset_value(ctx: typer.Context, app: App, path: Path, key: Key) -> None:
    """Take a value away."""
    session(ctx).client().update_route(app, path, {"config": {key: ""}})
    say(f"{app} {path} {key} removed")


@config.command("get")
def get_value(ctx: typer.Context, app: App, path: Path, key: Key) -> None:
    """Print a value."""
    say(value_of(session(ctx).client().route(app, path), key))


@config.command("list")
def list_values(ctx: typer.Context, app: App, path: Path, output: Output = Format.TABLE) -> None:
    """List the values."""
    show_config(session(ctx).client().route(app, path).get("config", {}), output)


def _fields(
    image: str,
    memory: int,
    cpus: str,
    type_name: str,
    format_name: str,
    timeout: int,
    idle_timeout: int,
    config: list[str] | None,
    headers: list[str] | None,
) -> dict[str, Any]:
    """The fields that were given."""
    fields = {
        "image": image,
        "memory": memory,
        "cpus": cpus,
        "type": type_name,
        "format": format_name,
        "timeout": timeout,
        "idle_timeout": idle_timeout,
        "config": pairs(config),
        "headers": header_lists(headers),
    }
    return {name: value for name, value in fields.items() if value}
