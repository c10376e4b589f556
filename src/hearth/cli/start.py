"""hearth start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop

from hearth import FN_VERSION, __version__, nodes, settings
from hearth.cli.data_lock import FLEET_LOCK, data_lock
from hearth.cli.output import say
from hearth.models.errors import StartUpError
from hearth.models.principal import AuthMode
from hearth.nodes.ports import own_url
from hearth.telemetry import logs, redaction

_START_NODE: Final = (sys.executable, "-c", "from hearth.cli import main; main()", "start")

_log = logs.get_logger(__name__)


def start(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, help="Port to listen on; 0 for any free port (default: FN_PORT, else 8080)."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (default: FN_BIND).")] = None,
    driver: Annotated[
        settings.DriverName | None,
        typer.Option("--driver", help="Run functions as processes or in Docker (default: FN_DRIVER)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder (default: FN_DATA_DIR, else ./data).")
    ] = None,
    workers: Annotated[
        str,
        typer.Option("--workers", metavar="N", help="Number of processes that serve; auto for half of the processors."),
    ] = "1",
    nodes_: Annotated[
        int,
        typer.Option(
            "--nodes", min=1, help="Number of runners on this machine, behind HAProxy (default: one full node)."
        ),
    ] = 1,
) -> None:
    """Run a node in the foreground, configured by these options and the FN_* variables; Ctrl-C stops it.

    Examples:
        hearth start
        hearth start --port 9000 --data /var/lib/hearth
        FN_AUTH=required hearth start --host 0.0.0.0 --driver docker
    """
    # Until the node takes signals itself: process 1 of a container is not ended by one that it has no handler for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.umask(0o077)  # other users must not read what a node writes
    given: dict[str, Any] = {"port": port, "bind": host, "driver": driver, "data_dir": data}
    wanted = settings.load(**{name: value for name, value in given.items() if value is not None})
    redaction.hide(settings.secrets(wanted))
    logs.configure(
        wanted.log_level,
        wanted.log_dest,
        wanted.log_prefix,
        as_json=wanted.log_format == "json",
        with_functions=not wanted.disable_debug_user_logs,
    )
    for name, similar in settings.unknown_variables().items():
        _log.warning("unknown variable, ignored", variable=name, **({"perhaps": similar} if similar else {}))
    for name, instead in settings.variables_without_effect().items():
        _log.warning("variable of Fn has no effect", variable=name, instead=instead)
    if (count := _workers(workers)) > 1:
        if nodes_ > 1:
            raise StartUpError("--workers and --nodes: choose one of them")
        from hearth.nodes.workers.supervisor import serve_workers

        # The command knows by the second lock that the process which listens is a worker of the one with the first.
        with data_lock(wanted.data) as note_node, data_lock(wanted.data, FLEET_LOCK) as note_workers:

            def announce_workers(url: str, driver: str) -> None:
                note_node(url)
                note_workers(url)
                _announce(wanted, url, f"{settings.FULL}, {count} workers", driver, _others(wanted))

            asyncio.run(serve_workers(wanted, count, announce_workers))
        return
    if nodes_ > 1:
        from hearth.nodes.local_fleet import serve_local_fleet

        with data_lock(wanted.data, FLEET_LOCK) as note_fleet:

            def announce_fleet(url: str, driver: str) -> None:
                note_fleet(url)
                _announce(wanted, url, f"{nodes_} runners", driver)

            asyncio.run(serve_local_fleet(wanted, nodes_, _START_NODE, announce_fleet))
        return
    with data_lock(wanted.data) as note:

        def announce(node: nodes.Node, listeners: Sequence[nodes.Listener]) -> None:
            url, *others = [one.url for one in listeners]
            note(url)
            _announce(wanted, url, node.type, node.driver, others)

        uvloop.run(nodes.serve(wanted, announce))


def _workers(text: str) -> int:
    """Return the number of workers that an option asks for.

    Raises:
        StartUpError: It is no number.
    """
    if text == "auto":
        return max(1, (os.cpu_count() or 1) // 2)
    if not text.isdecimal() or not int(text):
        raise StartUpError(f"--workers {text}: give a number from 1, or auto")
    return int(text)


def _others(wanted: settings.Settings) -> list[str]:
    """Return where a node with workers listens besides its port."""
    place = wanted.admin_place
    scheme = "http" if wanted.tls_cert is None else "https"
    found = [own_url(*place, scheme)] if isinstance(place, tuple) else [f"unix:{place}"] if place else []
    return [*found, *([f"unix:{wanted.socket}"] if wanted.socket else [])]


def _announce(wanted: settings.Settings, url: str, node_type: str, driver: str, others: Sequence[str] = ()) -> None:
    say(f"Hearth {__version__} (v{FN_VERSION})")
    say(f"  url     {url}")
    for number, other in enumerate(others):
        say(f"  {'api' if wanted.admin_bind and not number else 'socket':<7} {other}")
    say(f"  data    {wanted.data}")
    say(f"  type    {node_type}")
    say(f"  access  {_access(wanted)}")
    say(f"  driver  {driver}")


def _access(wanted: settings.Settings) -> str:
    match wanted.auth:
        case AuthMode.LOOPBACK:
            return "programs on this machine, without a token (FN_AUTH=loopback)"
        case AuthMode.REQUIRED:
            return f"clients with a token, on {wanted.address} (FN_AUTH=required)"
        case AuthMode.OFF:
            return f"everybody who reaches {wanted.address}, without a token (FN_AUTH=off)"
