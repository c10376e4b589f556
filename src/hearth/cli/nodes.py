"""hearth nodes: list the nodes of a fleet, and let one drain."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import typer

from hearth.cli.fields import no_slash
from hearth.cli.output import ListFormat, ListOutput, say, show_list
from hearth.cli.session import session
from hearth.models.times import parse_time

nodes = typer.Typer(no_args_is_help=True, help="List the nodes of a fleet, and let one drain.")


@nodes.command("list")
@nodes.command("ls", hidden=True)
def list_nodes(ctx: typer.Context, output: ListOutput = ListFormat.TABLE) -> None:
    """List the nodes that the server knows, itself first. JSON and YAML have containers by function, too.

    Examples:
        hearth nodes list
        hearth nodes list --output json
    """
    show_list(
        session(ctx).client().nodes(),
        output,
        ["ID", "TYPE", "HOST", "VERSION", "STATE", "MEMORY", "CONTAINERS"],
        lambda one: [
            one["id"],
            one["type"],
            one["host"],
            one["version"],
            _state(one),
            f"{one['used_mib']}/{one['memory_mib']}",
            str(one["containers"]),
        ],
    )


@nodes.command()
def drain(
    ctx: typer.Context,
    node_id: Annotated[str, typer.Argument(metavar="NODE", help="Node ID.", callback=no_slash)],
) -> None:
    """Let a node drain: it takes no async call any more, and balancers send it nothing. It finishes its calls.

    It drains until it is started again.

    Examples:
        hearth nodes drain 0f3a9c2b71de
    """
    found = session(ctx).client().drain_node(node_id)
    say(f"node {node_id} on {found['host']} drains; start it again to end that")


def _state(node: dict[str, Any]) -> str:
    """Return the state; of a node that is away, with the time since its last report."""
    if node["state"] != "away":
        return str(node["state"])
    passed_s = max(0.0, (dt.datetime.now(dt.UTC) - parse_time(node["last_seen"])).total_seconds())
    return f"away {passed_s:.0f}s" if passed_s < 100 else f"away {passed_s / 60:.0f}m"
