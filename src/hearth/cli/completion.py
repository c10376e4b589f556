"""Names for the shell's completion: apps and routes of the server that the command line names.

An error offers no names: the shell shows nothing that a completion prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import typer

from hearth.cli.session import from_options
from hearth.models.errors import HearthError

if TYPE_CHECKING:
    from hearth.cli.client import Client

#: Names that are read from the server for one completion.
_MOST: Final = 500


def app_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of apps that start with what is typed."""
    return _offered(ctx, incomplete, lambda client: [app["name"] for app in client.apps(_MOST)])


def route_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the paths that start with what is typed, of routes of the app that is typed before."""
    app = str(ctx.params.get("app") or next(iter(ctx.args), ""))  # an option without its value ends the parsing
    if not app:
        return []
    return _offered(ctx, incomplete, lambda client: [route["path"] for route in client.routes(app, _MOST)])


def _offered(ctx: typer.Context, incomplete: str, names: Callable[[Client], list[str]]) -> list[str]:
    """Return names from the server that the global options, the environment or the context name."""
    given: dict[str, Any] = ctx.find_root().params
    found = from_options(**given)
    try:
        return [name for name in names(found.client()) if name.startswith(incomplete)]
    except (HearthError, OSError, KeyError):
        return []
    finally:
        found.close()
