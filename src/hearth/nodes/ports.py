"""The port of a node, and the process that already listens on it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hearth.models.errors import StartUpError

#: Seconds of silence on a connection before its other end is looked for, between looks; and how many looks.
_QUIET_S: Final = 10
_PROBE_S: Final = 5
_PROBES: Final = 3
_LISTENS: Final = "0A"  # TCP_LISTEN, as the kernel writes it


def listen(address: str, port: int, of: str = "FN_BIND", *, is_shared: bool = False) -> socket.socket:
    """Listen on a port, 0 for any free one, of an IPv4 or IPv6 address; ``::`` means all addresses of both.

    Args:
        address: Where to listen.
        port: Its port.
        of: The setting that names the address, for errors.
        is_shared: Other sockets of this user may listen there, too, and each gets its part of the connections.

    Raises:
        StartUpError: The port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server(
            (address, port), family=family, backlog=2048, dualstack_ipv6=address == "::", reuse_port=is_shared
        )
    except OSError as exc:
        number = exc.errno or 0
        if number < 0 or number == errno.EADDRNOTAVAIL:  # below zero: the name of no address
            raise StartUpError(f"{of}={address}: {exc.strerror}; name an address of this machine") from exc
        holder = f" by {holder_of(port)}" if number == errno.EADDRINUSE else ""
        reason = f"{os.strerror(number)}{holder}"
        setting = "FN_PORT" if of == "FN_BIND" else of
        raise StartUpError(f"{setting}={port}: cannot listen: {reason}; choose another port") from exc
    # Connections inherit this from their listener. So that of a machine that vanished ends soon, above all a runner's
    # poll, which would otherwise be given async calls.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    return listener


def own_url(address: str, port: int, scheme: str = "http") -> str:
    """Return the URL by which its own machine reaches a server that listens on this address."""
    if address in ("", "0.0.0.0", "::"):
        return f"{scheme}://127.0.0.1:{port}"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def holder_of(port: int, proc: Path = Path("/proc")) -> str:
    """Return the process that listens, as ``process 123 (nginx)``, or ``another process`` if it is hidden."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_target(entry) in sockets for entry in (folder / "fd").iterdir()):
                name = (folder / "comm").read_text().strip()
                return f"process {folder.name} ({name})"
    return "another process"


def _target(entry: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(entry.readlink())
    return ""


def _inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
