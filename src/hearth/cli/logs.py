"""hearth logs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hearth.cli.fields import App, no_slash
from hearth.cli.output import CommandError, Format, Output, show_json, show_log
from hearth.cli.session import session


class _GetUnlessNamed(TyperGroup):
    """``hearth logs APP`` is ``hearth logs get APP``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["get", *args]
        return super().parse_args(ctx, args)


logs = typer.Typer(cls=_GetUnlessNamed, no_args_is_help=True, help="Print or follow the logs of calls.")


@logs.command("get")
def get_log(
    ctx: typer.Context,
    app: App,
    call_id: Annotated[
        str, typer.Argument(metavar="ID", help="Call ID, or 'last', or the path of a route for its last call.")
    ] = "last",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print the logs of calls as they end.")] = False,
    path: Annotated[str, typer.Option("--path", help="Only calls of this route.", show_default=False)] = "",
    output: Output = Format.TABLE,
) -> None:
    """Print the log of a call; with -f, the logs of all calls as they end, until Ctrl-C."""
    if call_id.startswith("/"):
        path, call_id = call_id, "last"
    call_id = no_slash(call_id)
    client = session(ctx).client()
    if follow:
        from hearth.cli.follow import follow_logs

        follow_logs(client, app, path, output)
        return
    if call_id == "last":
        newest = next(client.calls(app, 1, path=path), None)
        if newest is None:
            raise CommandError(f"app {app} has no calls{f' of {path}' if path else ''} yet")
        call_id = newest["id"]
    log = client.log(app, call_id)
    if output is Format.JSON:
        show_json({"call_id": call_id, "log": log.decode("utf-8", "replace")})
    else:
        show_log(log)
