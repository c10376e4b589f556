"""The same commands with the verb first, such as ``hearth create app``, as in later versions of the fn CLI."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperGroup

from hearth.cli.lazy import Entry, LazyGroup, examples_text

_APP: Final = ("app", "apps", "a"), "hearth.cli.apps:apps"
_ROUTE: Final = ("route", "routes", "r"), "hearth.cli.routes:routes"
_CALL: Final = ("call", "calls"), "hearth.cli.calls:calls"
_LOG: Final = ("log", "logs"), "hearth.cli.logs:logs"
_CONTEXT: Final = ("context", "contexts", "ctx"), "hearth.cli.contexts:contexts"
_CONFIGURED: Final = (_APP, _ROUTE)
#: Verbs, with what they act on.
_OBJECTS: Final[dict[str, tuple[tuple[tuple[str, ...], str], ...]]] = {
    "create": (_APP, _ROUTE, _CONTEXT),
    "list": (_APP, _ROUTE, _CALL, _CONTEXT),
    "inspect": (_APP, _ROUTE, _CALL, _CONTEXT),
    "get": (_CALL, _LOG, _APP, _ROUTE),
    "update": (_APP, _ROUTE, _CONTEXT),
    "delete": (_APP, _ROUTE, _CONTEXT),
    "use": (_CONTEXT,),
    "unset": (_CONTEXT,),
}
#: Verbs of a configuration, as in ``hearth unset config app A KEY``.
_OF_CONFIG: Final = ("get", "list", "unset", "delete")


def _verb(verb: str) -> typer.Typer:
    """Return the group of a verb: one command for each kind of object."""
    table = {
        name: Entry(where, f"As hearth {names[1]} {verb}.", hidden=name != names[0])
        for names, where in _OBJECTS[verb]
        for name in names
    }

    class OfVerb(LazyGroup):
        entries = table

        def list_commands(self, ctx: Any) -> list[str]:
            return [*self.entries, "config"] if verb in _OF_CONFIG else list(self.entries)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name in ("config", "cf") and verb in _OF_CONFIG:
                return typer.main.get_group(_config(verb))
            return super().get_command(ctx, cmd_name)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, group, rest = super().resolve_command(ctx, args)
            return name, group.commands[verb] if name in self.entries else group, rest

    return typer.Typer(cls=OfVerb, no_args_is_help=True, help=_HELP[verb], epilog=examples_text([_EXAMPLE[verb]]))


def _config(verb: str) -> typer.Typer:
    """Return the group of a verb that acts on a configuration."""
    table = {
        name: Entry(where, f"As hearth {names[1]} config {verb}.", hidden=name != names[0])
        for names, where in _CONFIGURED
        for name in names
    }

    class OfConfig(LazyGroup):
        entries = table

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, group, rest = super().resolve_command(ctx, args)
            config = group.commands["config"]
            assert isinstance(config, TyperGroup)
            return name, config.commands[verb], rest

    value = " green" if verb == "set" else ""
    key = "" if verb == "list" else " COLOUR"
    return typer.Typer(
        name="config",
        cls=OfConfig,
        no_args_is_help=True,
        help="Manage configuration values.",
        epilog=examples_text([f"hearth {'' if verb == 'set' else f'{verb} '}config app shop{key}{value}"]),
    )


_HELP: Final = {
    "create": "Create an app, a route or a context.",
    "list": "List apps, routes, calls, contexts or a configuration.",
    "inspect": "Show an app, a route, a call or a context.",
    "get": "Get a call, a log or a configuration value.",
    "update": "Update an app, a route or the current context.",
    "delete": "Delete an app, a route, a context or a configuration value.",
    "use": "Use a context.",
    "unset": "Unset the current context or a configuration value.",
}

_EXAMPLE: Final = {
    "create": "hearth create app shop",
    "list": "hearth list routes shop",
    "inspect": "hearth inspect route shop /cart",
    "get": "hearth get logs shop",
    "update": "hearth update route shop /cart --memory 256",
    "delete": "hearth delete route shop /cart",
    "use": "hearth use context prod",
    "unset": "hearth unset config app shop COLOUR",
}

create = _verb("create")
list_ = _verb("list")
inspect = _verb("inspect")
get = _verb("get")
update = _verb("update")
delete = _verb("delete")
use = _verb("use")
unset = _verb("unset")
config = _config("set")
