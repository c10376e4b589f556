"""hearth start."""

from __future__ import annotations

import typer
import uvloop

from hearth import FN_VERSION, __version__, nodes, settings
from hearth.cli.data_lock import data_lock
from hearth.telemetry import logs, redaction

_log = logs.get_logger(__name__)


def start() -> None:
    """Run a node in the foreground, configured by the FN_* variables; Ctrl-C stops it."""
    wanted = settings.load()
    redaction.hide(settings.secrets(wanted))
    logs.configure(wanted.log_level, wanted.log_dest, wanted.log_prefix)
    for name, similar in settings.unknown_variables().items():
        _log.warning("unknown variable, ignored", variable=name, **({"perhaps": similar} if similar else {}))
    with data_lock(wanted.data) as note:

        def announce(node: nodes.Node, url: str) -> None:
            note(url)
            typer.echo(f"Hearth {__version__} (v{FN_VERSION})")
            typer.echo(f"  url     {url}")
            typer.echo(f"  data    {wanted.data}")
            typer.echo(f"  type    {node.type}")
            typer.echo(f"  driver  {node.driver}")

        uvloop.run(nodes.serve(wanted, announce))
