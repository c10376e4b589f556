"""hearth schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hearth.cli.client import Client
from hearth.cli.fields import App, no_slash, request_header
from hearth.cli.output import (
    CommandError,
    Format,
    ListFormat,
    ListOutput,
    Output,
    Yes,
    confirmed,
    say,
    show_json,
    show_list,
)
from hearth.cli.session import session
from hearth.models.schedule import IF_MISSED, OVERLAPS

schedules = typer.Typer(no_args_is_help=True, help="Call functions at certain times.")

#: The fields of a schedule that the server sets.
_OF_SERVER = ("id", "created_at", "updated_at", "next", "last_due", "last_call")
_TIMINGS = ("cron", "every", "at")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.", callback=no_slash)]
Route = Annotated[str | None, typer.Option("--route", help="Path of the route to call.", show_default=False)]
Fn = Annotated[str | None, typer.Option("--fn", metavar="ID", help="ID of the fn to call.", show_default=False)]
Cron = Annotated[
    str | None,
    typer.Option("--cron", help='Five fields, such as "0 2 * * *": each night at two.', show_default=False),
]
Timezone = Annotated[
    str | None, typer.Option("--timezone", help="Time zone of --cron (default: UTC).", show_default=False)
]
Every = Annotated[str | None, typer.Option("--every", help="Interval, such as 90s, 15m or 1d.", show_default=False)]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="One RFC 3339 time.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", metavar="TEXT", help="Body of each call; @FILE for the content of a file.", show_default=False
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header", "-H", metavar="NAME: VALUE", help="Header of each call. Can be repeated.", show_default=False
    ),
]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="Fire, or pause.", show_default=False)]
IfMissed = Annotated[
    str | None,
    typer.Option(
        "--if-missed",
        help=f"Calls for times at which no node ran: {', '.join(IF_MISSED)} (default: once).",
        show_default=False,
    ),
]
Overlap = Annotated[
    str | None,
    typer.Option(
        "--overlap", help=f"If the last call has not ended: {', '.join(OVERLAPS)} (default: allow).", show_default=False
    ),
]


@schedules.command("list")
@schedules.command("ls", hidden=True)
def list_schedules(ctx: typer.Context, app: App, output: ListOutput = ListFormat.TABLE) -> None:
    """List the schedules of an app.

    Examples:
        hearth schedules list shop
    """
    found = session(ctx).client().schedules(app)
    show_list(
        found,
        output,
        ["NAME", "CALLS", "WHEN", "NEXT"],
        lambda one: [one["name"], one.get("route") or one["fn_id"], _when(one), *(one["next"][:1] or [_idle(one)])],
    )


@schedules.command("create")
def create_schedule(
    ctx: typer.Context,
    app: App,
    name: Name,
    route: Route = None,
    fn: Fn = None,
    cron: Cron = None,
    timezone: Timezone = None,
    every: Every = None,
    at: At = None,
    data: Data = None,
    headers: Headers = None,
    enabled: Enabled = None,
    if_missed: IfMissed = None,
    overlap: Overlap = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a schedule, and print the next five times at which it calls its function.

    Examples:
        hearth schedules create shop nightly --route /report --cron "0 2 * * *"
        hearth schedules create shop poll --route /poll --every 90s --overlap skip
        hearth schedules create shop launch --route /open --at 2030-01-31T12:00:00Z
    """
    given = _given(route, fn, cron, timezone, every, at, data, headers, enabled, if_missed, overlap)
    _show(session(ctx).client().create_schedule(app, {"name": name, **given}), output)


@schedules.command("update")
def update_schedule(
    ctx: typer.Context,
    app: App,
    name: Name,
    route: Route = None,
    fn: Fn = None,
    cron: Cron = None,
    timezone: Timezone = None,
    every: Every = None,
    at: At = None,
    data: Data = None,
    headers: Headers = None,
    enabled: Enabled = None,
    if_missed: IfMissed = None,
    overlap: Overlap = None,
    output: Output = Format.TABLE,
) -> None:
    """Change a schedule; what is not named stays. The headers are replaced together.

    Examples:
        hearth schedules update shop nightly --cron "30 3 * * *"
        hearth schedules update shop poll --disabled
    """
    given = _given(route, fn, cron, timezone, every, at, data, headers, enabled, if_missed, overlap)
    client = session(ctx).client()
    stored = _settable(client, app, name)
    if route is not None or fn is not None:
        stored = {key: value for key, value in stored.items() if key not in ("route", "fn_id")}
    if any(timing in given for timing in _TIMINGS):
        gone = _TIMINGS if "cron" in given else (*_TIMINGS, "timezone")
        stored = {key: value for key, value in stored.items() if key not in gone}
    _show(client.put_schedule(app, name, {**stored, **given}), output)


@schedules.command("delete")
@schedules.command("remove", hidden=True)
def delete_schedule(ctx: typer.Context, app: App, name: Name, force: Yes = False) -> None:
    """Delete a schedule. Calls that it has made stay.

    Examples:
        hearth schedules delete shop nightly
    """
    confirmed(f"Delete schedule {name} of app {app}?", force)
    session(ctx).client().delete_schedule(app, name)
    say(f"schedule {name} of app {app} deleted")


@schedules.command("run")
def run_schedule(ctx: typer.Context, app: App, name: Name) -> None:
    """Call the function of a schedule now; print the ID of the call.

    Examples:
        hearth schedules run shop nightly
    """
    say(session(ctx).client().run_schedule(app, name))


@schedules.command("next")
def next_times(ctx: typer.Context, app: App, name: Name) -> None:
    """Print the next five times at which a schedule calls its function.

    Examples:
        hearth schedules next shop nightly
    """
    for moment in session(ctx).client().schedule(app, name)["next"]:
        say(moment)


def _given(
    route: str | None,
    fn: str | None,
    cron: str | None,
    timezone: str | None,
    every: str | None,
    at: str | None,
    data: str | None,
    headers: list[str] | None,
    enabled: bool | None,
    if_missed: str | None,
    overlap: str | None,
) -> dict[str, Any]:
    """Return the fields that options set."""
    found: dict[str, list[str]] = {}
    for text in headers or ():
        name, value = request_header(text)
        found.setdefault(name, []).append(value)
    fields: dict[str, Any] = {"route": route, "fn_id": fn, "cron": cron, "timezone": timezone, "every": every, "at": at}
    fields |= {"payload": _payload(data), "headers": found or None, "enabled": enabled}
    fields |= {"if_missed": if_missed, "overlap": overlap}
    return {name: value for name, value in fields.items() if value is not None}


def _payload(data: str | None) -> str | None:
    if data is None or not data.startswith("@"):
        return data
    try:
        return Path(data[1:]).read_bytes().decode()
    except UnicodeDecodeError:
        raise CommandError(f"{data[1:]}: the body must be UTF-8; encode other bytes, in base64 for example") from None


def _settable(client: Client, app: str, name: str) -> dict[str, Any]:
    return {key: value for key, value in client.schedule(app, name).items() if key not in _OF_SERVER}


def _show(schedule: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        show_json(schedule)
        return
    coming = f"next at {', '.join(schedule['next'])}" if schedule["next"] else _idle(schedule)
    say(f"schedule {schedule['name']}: {_when(schedule)}; {coming}")


def _when(schedule: dict[str, Any]) -> str:
    if "cron" in schedule:
        return f"{schedule['cron']} {schedule.get('timezone', 'UTC')}"
    return f"every {schedule['every']}" if "every" in schedule else f"at {schedule['at']}"


def _idle(schedule: dict[str, Any]) -> str:
    return "it never fires again" if schedule["enabled"] else "disabled"
