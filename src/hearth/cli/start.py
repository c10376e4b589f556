"""hearth start."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer
import uvloop

from hearth import FN_VERSION, __version__, nodes, settings
from hearth.cli.data_lock import data_lock
from hearth.telemetry import logs, redaction

_log = logs.get_logger(__name__)


def start(
    nodes_: Annotated[
        int, typer.Option("--nodes", min=1, help="Runners on this machine, behind HAProxy; 1: one full node.")
    ] = 1,
) -> None:
    """Run a node in the foreground, configured by the FN_* variables; Ctrl-C stops it."""
    # Until the node takes signals itself: process 1 of a container is not ended by one that it has no handler for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = settings.load()
    redaction.hide(settings.secrets(wanted))
    logs.configure(wanted.log_level, wanted.log_dest, wanted.log_prefix)
    for name, similar in settings.unknown_variables().items():
        _log.warning("unknown variable, ignored", variable=name, **({"perhaps": similar} if similar else {}))
    if nodes_ > 1:
        from hearth.cli import crew

        asyncio.run(crew.run(wanted, nodes_, lambda url: _announce(wanted, url, f"{nodes_} runners", wanted.driver)))
        return
    with data_lock(wanted.data) as note:

        def announce(node: nodes.Node, url: str) -> None:
            note(url)
            _announce(wanted, url, node.type, node.driver)

        uvloop.run(nodes.serve(wanted, announce))


def _announce(wanted: settings.Settings, url: str, node_type: str, driver: str) -> None:
    typer.echo(f"Hearth {__version__} (v{FN_VERSION})")
    typer.echo(f"  url     {url}")
    typer.echo(f"  data    {wanted.data}")
    typer.echo(f"  type    {node_type}")
    typer.echo(f"  driver  {driver}")
