"""hearth calls."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hearth.cli.fields import App, CallId, unix_seconds
from hearth.cli.output import Format, Output, show_json, show_property, show_table
from hearth.cli.session import session

calls = typer.Typer(no_args_is_help=True, help="Show the records of calls.")

_COLUMNS = {
    "ID": "id",
    "APP": "app_name",
    "ROUTE": "path",
    "CREATED": "created_at",
    "STARTED": "started_at",
    "COMPLETED": "completed_at",
    "STATUS": "status",
    "ANSWER": "response_status",
    "ERROR": "error",
}


@calls.command("list")
@calls.command("ls", hidden=True)
def list_calls(
    ctx: typer.Context,
    app: App,
    path: Annotated[str, typer.Option("--path", help="Only calls of this route.", show_default=False)] = "",
    status: Annotated[
        str,
        typer.Option(
            "--status",
            help="Only calls with this status: queued, running, success, error, timeout or expired.",
            show_default=False,
        ),
    ] = "",
    cursor: Annotated[str, typer.Option(help="Only calls older than the one with this ID.", show_default=False)] = "",
    from_time: Annotated[str, typer.Option(help="Only calls after this time (RFC 3339).", show_default=False)] = "",
    to_time: Annotated[str, typer.Option(help="Only calls before this time (RFC 3339).", show_default=False)] = "",
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Maximum number of items.")] = 100,
    output: Output = Format.TABLE,
) -> None:
    """List the calls of an app, newest first."""
    filters = {
        "path": path,
        "status": status,
        "cursor": cursor,
        "from_time": unix_seconds(from_time, "--from-time"),
        "to_time": unix_seconds(to_time, "--to-time"),
    }
    found = list(session(ctx).client().calls(app, n, **filters))
    if output is Format.JSON:
        show_json(found)
    else:
        show_table(list(_COLUMNS), (_row(call) for call in found))


@calls.command("get")
@calls.command("inspect", hidden=True)
def get_call(
    ctx: typer.Context,
    app: App,
    call_id: CallId,
    property: Annotated[str, typer.Argument(metavar="PROPERTY", help="Print only this property, such as status.")] = "",
) -> None:
    """Show the record of a call as JSON."""
    show_property(session(ctx).client().call(app, call_id), property)


def _row(call: dict[str, Any]) -> list[str]:
    cells = (str(call.get(name, "")) for name in _COLUMNS.values())
    return ["-" if cell.startswith("0001-01-01") else cell for cell in cells]
