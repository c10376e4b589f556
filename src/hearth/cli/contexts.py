"""hearth contexts: choose the server and the registry of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from hearth.cli import fn_home
from hearth.cli.fn_home import FnHome
from hearth.cli.output import CommandError, ListFormat, ListOutput, say, show_list, show_property
from hearth.cli.session import session

contexts = typer.Typer(
    no_args_is_help=True, help="Manage named servers and registries; they are stored in ~/.fn, as by the fn CLI."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Context name.")]


@contexts.command()
def create(
    name: Name,
    api_url: Annotated[str, typer.Option("--api-url", help="Server URL.")] = fn_home.DEFAULT_API_URL,
    registry: Annotated[str, typer.Option("--registry", help="Registry, the prefix of image names.")] = "",
    provider: Annotated[
        str, typer.Option("--provider", help="Provider of the fn CLI; only default works here.")
    ] = "default",
) -> None:
    """Create a context.

    Examples:
        hearth contexts create prod --api-url https://fn.example.com
    """
    values = {fn_home.API_URL: api_url, fn_home.PROVIDER: provider, fn_home.REGISTRY: registry}
    FnHome().create(name, values)
    say(f"Successfully created context: {name}")


@contexts.command("list")
@contexts.command("ls", hidden=True)
def list_contexts(ctx: typer.Context, output: ListOutput = ListFormat.TABLE) -> None:
    """List the contexts; * marks the current one.

    Examples:
        hearth contexts list
    """
    home = FnHome()
    current = session(ctx).context or home.current()
    found = [{"name": name, "current": name == current, **home.get(name)} for name in home.names()]
    keys = (fn_home.PROVIDER, fn_home.API_URL, fn_home.REGISTRY)
    show_list(
        found,
        output,
        ["CURRENT", "NAME", "PROVIDER", "API URL", "REGISTRY"],
        lambda one: ["*" if one["current"] else "", str(one["name"]), *(str(one.get(key) or "") for key in keys)],
        name_column=1,
    )


@contexts.command()
def use(name: Name) -> None:
    """Make a context the current one.

    Examples:
        hearth contexts use prod
    """
    FnHome().use(name)
    say(f"Now using context: {name}")


@contexts.command()
def unset() -> None:
    """Use no context: the server is http://localhost:8080 unless given.

    Examples:
        hearth contexts unset
    """
    FnHome().use("")
    say("No context is in use")


@contexts.command()
def update(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="api-url, registry or provider.")],
    value: Annotated[str, typer.Argument(metavar="VALUE")] = "",
    delete: Annotated[bool, typer.Option("--delete", help="Delete the value.")] = False,
) -> None:
    """Set or delete a value of the current context.

    Examples:
        hearth contexts update registry ghcr.io/me
    """
    if not value and not delete:
        raise typer.BadParameter("give a value, or --delete", param_hint="VALUE")
    name = _in_use(ctx)
    FnHome().update(name, key, None if delete else value)
    say(f"Context {name}: {key} {'removed' if delete else f'set to {value}'}")


@contexts.command()
def delete(name: Name) -> None:
    """Delete a context other than the current one.

    Examples:
        hearth contexts delete prod
    """
    FnHome().delete(name)
    say(f"Successfully deleted context {name}")


@contexts.command()
@contexts.command("get", hidden=True)
def inspect(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Context name (default: the current one).")] = "",
    property: Annotated[
        str, typer.Argument(metavar="PROPERTY", help="Print only this property, such as api-url.")
    ] = "",
) -> None:
    """Show a context as JSON.

    Examples:
        hearth contexts inspect prod
    """
    show_property(FnHome().get(name or _in_use(ctx)), property)


def _in_use(ctx: typer.Context) -> str:
    if not (name := session(ctx).context or FnHome().current()):
        raise CommandError("no context is in use; hearth use context NAME chooses one")
    return name
