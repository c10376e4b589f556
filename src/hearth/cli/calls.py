"""hearth calls."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hearth.cli.fields import App, CallId, OfRoute, unix_seconds
from hearth.cli.output import (
    ListFormat,
    ListOutput,
    Styled,
    say,
    short_time,
    show_list,
    show_property,
    terminal_width,
)
from hearth.cli.session import session

if TYPE_CHECKING:
    from hearth.cli.client import Record

calls = typer.Typer(no_args_is_help=True, help="Show the records of calls, and cancel calls.")

_HEAD: Final = ("ID", "ROUTE", "CREATED", "DURATION", "STATUS", "ERROR")
#: Columns of a terminal below which errors are left out: the rest needs them.
_WIDE: Final = 110
_STYLES: Final = {
    "success": "green",
    "error": "red",
    "timeout": "red",
    "expired": "red",
    "cancelled": "red",
    "running": "yellow",
}


@calls.command("list")
@calls.command("ls", hidden=True)
def list_calls(
    ctx: typer.Context,
    app: App,
    path: OfRoute = "",
    status: Annotated[
        str,
        typer.Option(
            "--status",
            help="Only calls with this status: queued, running, success, error, timeout, expired or cancelled.",
            show_default=False,
        ),
    ] = "",
    cursor: Annotated[str, typer.Option(help="Only calls older than the one with this ID.", show_default=False)] = "",
    from_time: Annotated[str, typer.Option(help="Only calls after this time (RFC 3339).", show_default=False)] = "",
    to_time: Annotated[str, typer.Option(help="Only calls before this time (RFC 3339).", show_default=False)] = "",
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Maximum number of items.")] = 100,
    output: ListOutput = ListFormat.TABLE,
) -> None:
    """List the calls of an app, newest first.

    Examples:
        hearth calls list shop
        hearth calls list shop --path /cart --status error
        hearth calls list shop --from-time 2026-01-31T16:00:00Z -n 20
    """
    filters = {
        "path": path,
        "status": status,
        "cursor": cursor,
        "from_time": unix_seconds(from_time, "--from-time"),
        "to_time": unix_seconds(to_time, "--to-time"),
    }
    found = list(session(ctx).client().calls(app, n, **filters))
    columns = len(_HEAD) - (0 < terminal_width() < _WIDE)
    show_list(found, output, _HEAD[:columns], lambda call: _row(call)[:columns], fold=(1, 5))


@calls.command("get")
@calls.command("inspect", hidden=True)
def get_call(
    ctx: typer.Context,
    app: App,
    call_id: CallId,
    property: Annotated[str, typer.Argument(metavar="PROPERTY", help="Print only this property, such as status.")] = "",
) -> None:
    """Show the record of a call as JSON.

    Examples:
        hearth calls get shop 01KBC4Z1S9NG8G00GZJ0000001
        hearth calls get shop 01KBC4Z1S9NG8G00GZJ0000001 status
    """
    show_property(session(ctx).client().call(app, call_id), property)


@calls.command("cancel")
def cancel_call(ctx: typer.Context, app: App, call_id: CallId) -> None:
    """End an async call that waits or runs.

    A call that runs is killed as at its timeout. A call that has ended cannot be cancelled.

    Examples:
        hearth calls cancel shop 01KBC4Z1S9NG8G00GZJ0000001
    """
    session(ctx).client().cancel_call(app, call_id)
    say(f"call {call_id} cancelled")


def _row(call: Record) -> list[str | Styled]:
    status, answered = str(call["status"]), call.get("response_status")
    return [
        str(call["id"]),
        str(call["path"]),
        _seconds(str(call["created_at"])),
        duration(call),
        Styled(f"{status} {answered}" if answered else status, _STYLES.get(status, "")),
        str(call.get("error") or ""),
    ]


def _seconds(moment: str) -> str:
    """Return an RFC 3339 time without parts of a second."""
    return f"{moment[:19]}Z"


def duration(call: Record) -> str:
    """Return how long a call ran, for a person; ``-`` if it has not ended or never started."""
    started, completed = (dt.datetime.fromisoformat(str(call[name])) for name in ("started_at", "completed_at"))
    if started.year == 1 or completed.year == 1:
        return "-"
    return short_time((completed - started).total_seconds())
