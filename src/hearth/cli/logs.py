"""hearth logs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hearth.cli.fields import App, OfRoute, no_slash, since_time
from hearth.cli.output import CommandError, Format, Output, show_json, show_log
from hearth.cli.session import session


class _GetUnlessNamed(TyperGroup):
    """``hearth logs APP`` is ``hearth logs get APP``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
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
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with the logs of calls as they end.")] = False,
    path: OfRoute = "",
    tail: Annotated[
        int | None,
        typer.Option("--tail", "-n", min=0, metavar="N", help="Only the last N lines that were logged."),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Logs of calls since then: 30s, 10m, 2h, 1d or an RFC 3339 time.",
            show_default=False,
        ),
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Print the log of a call, or with --tail or --since the logs of the last calls.

    With -f, go on with the logs of all calls as they end, until Ctrl-C. With -f and the ID of a call, wait for its end.

    Examples:
        hearth logs shop
        hearth logs shop 01KBC4Z1S9NG8G00GZJ0000001
        hearth logs shop --path /cart --follow --since 10m
        hearth logs shop --tail 20
    """
    if call_id.startswith("/"):
        path, call_id = call_id, "last"
    call_id = no_slash(call_id)
    from hearth.cli import follow as following

    past = following.Past(since_time(since, "--since"), tail)
    client = session(ctx).client()
    if call_id == "last" and follow:
        following.follow_logs(client, app, path, past, output)
        return
    if call_id == "last" and past:
        following.show_past(client, app, path, past, output)
        return
    if past.since is not None:
        raise typer.BadParameter("selects calls; leave out the call ID", param_hint="--since")
    if follow:
        following.wait_until_ended(client, app, call_id)
    if call_id == "last":
        newest = next(client.calls(app, 1, path=path), None)
        if newest is None:
            raise CommandError(f"app {app} has no calls{f' of {path}' if path else ''} yet")
        call_id = newest["id"]
    log = client.log(app, call_id)
    if tail is not None:
        log = b"".join(log.splitlines(keepends=True)[-tail:]) if tail else b""
    if output is Format.JSON:
        show_json({"call_id": call_id, "log": log.decode("utf-8", "replace")})
    else:
        show_log(log)
