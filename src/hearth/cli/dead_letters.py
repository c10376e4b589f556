"""hearth dead-letters: calls that failed, kept to be run again."""

from __future__ import annotations

from typing import Annotated

import typer

from hearth.cli.fields import App, CallId, Limit, OfRoute, unix_seconds
from hearth.cli.output import ListFormat, ListOutput, Yes, confirmed, say, show_bytes, show_json, show_list
from hearth.cli.session import session

dead_letters = typer.Typer(no_args_is_help=True, help="List, redrive and remove calls that failed.")

AnyCallId = Annotated[str, typer.Argument(metavar="[ID]", help="Call ID (default: all of the app).")]
From = Annotated[
    str, typer.Option("--from", help="Only calls that failed at or after this time (RFC 3339).", show_default=False)
]


@dead_letters.command("list")
@dead_letters.command("ls", hidden=True)
def list_dead_letters(
    ctx: typer.Context,
    app: App,
    path: OfRoute = "",
    since: From = "",
    n: Limit = 100,
    output: ListOutput = ListFormat.TABLE,
) -> None:
    """List the dead letters of an app, the newest failures first.

    Examples:
        hearth dead-letters list shop
        hearth dead-letters list shop --path /cart --from 2026-01-31T16:00:00Z
    """
    found = list(session(ctx).client().dead_letters(app, n, route=path, since=unix_seconds(since, "--from")))
    show_list(
        found,
        output,
        ["ID", "ROUTE", "FAILED", "STATUS", "BYTES", "ERROR"],
        lambda one: [
            str(one["id"]),
            str(one["path"]),
            f"{str(one['completed_at'])[:19]}Z",
            str(one["status"]),
            str(one["payload_bytes"]),
            str(one.get("error") or ""),
        ],
        fold=(1, 5),
    )


@dead_letters.command("show")
@dead_letters.command("get", hidden=True)
def show_dead_letter(
    ctx: typer.Context,
    app: App,
    call_id: CallId,
    payload: Annotated[bool, typer.Option("--payload", help="Print the payload instead.")] = False,
) -> None:
    """Show a dead letter with its headers as JSON, or its payload.

    Examples:
        hearth dead-letters show shop 01KBC4Z1S9NG8G00GZJ0000001
        hearth dead-letters show shop 01KBC4Z1S9NG8G00GZJ0000001 --payload
    """
    client = session(ctx).client()
    if payload:
        show_bytes([client.payload_of_dead_letter(app, call_id)])
    else:
        show_json(client.dead_letter(app, call_id))


@dead_letters.command()
def redrive(
    ctx: typer.Context, app: App, call_id: AnyCallId = "", path: OfRoute = "", since: From = "", force: Yes = False
) -> None:
    """Run a call that failed again as a new call, or all those of an app or a route.

    The new call runs the function as it is now. The dead letter is removed when the new call is accepted.

    Examples:
        hearth dead-letters redrive shop 01KBC4Z1S9NG8G00GZJ0000001
        hearth dead-letters redrive shop --path /cart
    """
    client = session(ctx).client()
    if call_id:
        say(client.redrive(app, call_id))
        return
    confirmed(f"Run all dead letters of {app}{path} again?", force)
    done, skipped = client.redrive_many(app, route=path, since=unix_seconds(since, "--from"))
    say(f"{done} calls accepted, {skipped} dead letters skipped")


@dead_letters.command()
def purge(
    ctx: typer.Context, app: App, call_id: AnyCallId = "", path: OfRoute = "", since: From = "", force: Yes = False
) -> None:
    """Remove a dead letter, or all those of an app or a route.

    Examples:
        hearth dead-letters purge shop 01KBC4Z1S9NG8G00GZJ0000001
        hearth dead-letters purge shop --path /cart --force
    """
    client = session(ctx).client()
    confirmed(f"Remove {f'dead letter {call_id}' if call_id else f'all dead letters of {app}{path}'}?", force)
    if call_id:
        client.remove_dead_letter(app, call_id)
        say(f"dead letter {call_id} removed")
        return
    removed = client.remove_dead_letters(app, route=path, since=unix_seconds(since, "--from"))
    say(f"{removed} dead letters removed")
