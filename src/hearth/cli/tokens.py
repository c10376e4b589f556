"""hearth tokens: create, list and revoke the tokens of a server."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Final

import typer

from hearth.cli.fields import Limit, no_slash
from hearth.cli.output import Format, ListFormat, ListOutput, Output, Yes, confirmed, note, say, show_json, show_list
from hearth.cli.session import session
from hearth.models.principal import TOKEN_ROLES
from hearth.models.times import format_time

tokens = typer.Typer(no_args_is_help=True, help="Create, list and revoke tokens of a server.")

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)


@tokens.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is for, such as ci.")],
    role: Annotated[str, typer.Option("--role", "-r", help=f"Role: {', '.join(TOKEN_ROLES)}.")],
    app: Annotated[
        list[str] | None,
        typer.Option("--app", "-a", metavar="APP", help="App that it reaches (default: all). Can be repeated."),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="When it expires: 12h, 30d or an RFC 3339 time.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Create a token and print its value, which nobody can print again.

    Examples:
        hearth tokens create ci --role developer
        hearth tokens create ci --role invoker --app shop --expires 30d
    """
    asked: dict[str, Any] = {"name": name, "role": role, "apps": app or []}
    if expires:
        asked["expires_at"] = _time(expires)
    made = session(ctx).client().create_token(asked)
    if output is Format.JSON:
        show_json(made)
        return
    note(f"Token {made['name']} created, ID {made['id']}; store its value now:")
    say(made["value"])


@tokens.command("list")
@tokens.command("ls", hidden=True)
def list_tokens(ctx: typer.Context, n: Limit = 100, output: ListOutput = ListFormat.TABLE) -> None:
    """List the tokens, without their values.

    Examples:
        hearth tokens list
    """
    found = list(session(ctx).client().tokens(n))
    show_list(
        found,
        output,
        ["ID", "NAME", "ROLE", "APPS", "LAST USED", "EXPIRES"],
        lambda one: [
            one["id"],
            one["name"],
            one["role"],
            ", ".join(one["apps"]) or "all",
            one["last_used_at"] or "never",
            one["expires_at"] or "never",
        ],
    )


@tokens.command()
@tokens.command("delete", hidden=True)
def revoke(
    ctx: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="Token ID.", callback=no_slash)],
    force: Yes = False,
) -> None:
    """Revoke a token: its server refuses it from then on, other nodes within 5 seconds.

    Examples:
        hearth tokens revoke 01KBC4Z1S9NG8G00GZJ0000001
    """
    confirmed(f"Revoke token {token_id}?", force)
    session(ctx).client().delete_token(token_id)
    say(f"token {token_id} revoked")


def _time(text: str) -> str:
    """Return a time as the API reads it; durations count from now."""
    if (match := _DURATION.fullmatch(text)) is None:
        return text
    return format_time(dt.datetime.now(dt.UTC) + dt.timedelta(**{_UNITS[match[2]]: int(match[1])}))
