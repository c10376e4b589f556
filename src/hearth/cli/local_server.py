"""Find the node on this machine that a URL leads to, and prove it by the kernel's tables of listeners.

The administrators' token must reach nobody but that node, and bundles are written nowhere but into its folder. So
neither a server's answer nor a file's text is believed. The process that listens on the URL's port has to hold the lock
of a data folder of its own user; the token of that folder is sent only over connections that were made to that very
listener. A program that takes the port after the node has ended is another process with another listener: it gets
nothing. For a Unix socket the kernel itself names the process that listens. Root sees the processes of all users,
hostile ones too: one may lock a folder of its own, and put links to other users' files in it. So only the files of a
process's own user are taken for its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hearth.cli.data_lock import FLEET_LOCK, NODE_LOCK
from hearth.cli.output import CommandError
from hearth.models.addresses import IPAddress, unmapped

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"  # TCP_LISTEN, as the kernel writes it
_LOCALHOST: Final = ("127.0.0.1", "::1")
#: The process, user and group of SO_PEERCRED.
_CREDENTIALS: Final = struct.Struct("3i")
_CONNECT_S: Final = 5.0
_HELD: Final = re.compile(r"^lock:.*\bFLOCK\b.*\bWRITE\b", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class LocalServer:
    """A node on this machine.

    Attributes:
        data: Its data folder.
        owner: The user that it runs as.
        port: Its port; 0 for a Unix socket.
        listeners: The kernel's numbers of its listeners, by the address that leads to them.
        process: The process that listens on the Unix socket.
    """

    data: Path
    owner: int
    port: int = 0
    listeners: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    process: int = 0

    def token(self) -> str:
        """Return the administrators' token; empty if this user may not read it, or the node has no file of it.

        Raises:
            StartUpError: The file is not what a node makes.
        """
        from hearth.authorize import admin_token

        with contextlib.suppress(OSError):
            return admin_token.read(self.data / admin_token.FILE, self.owner)
        return ""

    def check(self, event: str, info: dict[str, Any]) -> None:
        """Take part in a request (httpx's trace extension): refuse a new connection to another program.

        Raises:
            CommandError: The listener is not the node's.
        """
        if event == "connection.connect_unix_socket.complete":
            self._check_socket(info["return_value"].get_extra_info("socket"))
        if event != "connection.connect_tcp.complete":
            return
        connection: socket.socket = info["return_value"].get_extra_info("socket")
        address, port = connection.getpeername()[:2]
        known = self.listeners.get(str(address))
        if port != self.port or not known or _listeners(str(address), port) != known:
            connection.close()
            raise CommandError(f"port {self.port}: another program has taken the node's place; no token was sent to it")

    def _check_socket(self, connection: socket.socket) -> None:
        if (self.process, self.owner) != _listens(connection) or _folder_of(self.process) != (self.data, self.owner):
            connection.close()
            raise CommandError("another program has taken the node's socket; no token was sent to it")

    async def check_async(self, event: str, info: dict[str, Any]) -> None:
        """Do the same for an asynchronous client."""
        self.check(event, info)


def find(url: str) -> LocalServer | None:
    """Return the node of this machine that a URL leads to; ``None`` if that cannot be proven."""
    if (path := socket_path(url)) is not None:
        return _find_at(path)
    parts = urlsplit(url)
    addresses = _addresses(parts.hostname or "")
    if not addresses:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    listeners = {address: found for address in addresses if (found := _listeners(address, port))}
    if not listeners:
        return None
    for pid in _processes():
        if frozenset().union(*listeners.values()) <= _sockets(pid):
            held = _folder_of(pid)
            if held is not None:
                return LocalServer(*held, port, listeners)
    return None


def socket_path(url: str) -> Path | None:
    """Return the path of the Unix socket that a URL names, as ``unix:/path``; ``None`` for another URL."""
    scheme, _, path = url.partition(":")
    return Path(re.sub("^//+", "/", path)) if scheme == "unix" and path.startswith("/") else None


def _find_at(path: Path) -> LocalServer | None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        probe.connect(str(path))
        process, user = _listens(probe)
        held = _folder_of(process)
        if held is not None and held[1] == user:
            return LocalServer(*held, process=process)
    return None


def _listens(connection: socket.socket) -> tuple[int, int]:
    """Return the process that listens on the Unix socket of a connection, and its user (SO_PEERCRED, unix(7))."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    return process, user


def is_local(url: str) -> bool:
    """Return whether a URL names this machine; false for text that is no URL."""
    try:
        return socket_path(url) is not None or bool(_addresses(urlsplit(url).hostname or ""))
    except ValueError:
        return False


def _addresses(host: str) -> tuple[str, ...]:
    if host == "localhost":
        return _LOCALHOST
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return (host,)
    return ()


def _listeners(address: str, port: int) -> frozenset[str]:
    """Return the numbers of the sockets that listen for connections to an address."""
    wanted = unmapped(ipaddress.ip_address(address))
    return frozenset(number for bound, number in _bound(port) if _covers(bound, wanted))


def _covers(bound: IPAddress, wanted: IPAddress) -> bool:
    return bound == wanted or (bound.is_unspecified and (bound.version == 6 or wanted.version == 4))


def _bound(port: int) -> Iterator[tuple[IPAddress, str]]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, text = fields[1].rpartition(":")
                if fields[3] == _LISTENS and int(text, 16) == port:
                    yield unmapped(_decoded(address)), fields[9]


def _decoded(text: str) -> IPAddress:
    """Return an address that the kernel has written: words of 32 bits, in the order of this machine."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))


def _processes() -> Iterator[int]:
    return (int(path.name) for path in _PROC.glob("[0-9]*"))


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _user(pid: int) -> int | None:
    """Return the user that a process is; ``None`` if it is several, as a program with the set-uid bit."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("Uid:"):
                users = {int(word) for word in line.split()[1:]}
                return users.pop() if len(users) == 1 else None
    return None


def _descriptors(pid: int) -> Iterator[tuple[Path, str]]:
    """Yield what a process has open; nothing if it is not for us to see."""
    with contextlib.suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield entry, os.readlink(entry)


def _sockets(pid: int) -> frozenset[str]:
    return frozenset(
        target.removeprefix("socket:[").removesuffix("]")
        for _, target in _descriptors(pid)
        if target.startswith("socket:[")
    )


def _folder_of(pid: int) -> tuple[Path, int] | None:
    """Return the data folder of a node that is this process, or has it as a worker, and their user.

    The lock of the parent tells a worker from a function, whose parent is a node, too.
    """
    return _held_folder(pid) or _held_folder(_parent(pid), FLEET_LOCK)


def _held_folder(pid: int, name: str = NODE_LOCK) -> tuple[Path, int] | None:
    """Return the data folder that a process holds the lock of, and the user that both belong to."""
    owner = _user(pid)
    if owner is None or (folder := _locked(pid, name, owner)) is None:
        return None
    return folder, owner


def _locked(pid: int, name: str, owner: int) -> Path | None:
    """Return the folder whose lock a process holds, if both belong to this user."""
    for entry, target in _descriptors(pid):
        if os.path.basename(target) != name:
            continue
        with contextlib.suppress(OSError):
            info = (_PROC / str(pid) / "fdinfo" / entry.name).read_text()
            # The path is that of the process's own file system: here it may be another file.
            if not _HELD.search(info) or not os.path.samestat(held := os.stat(entry), os.stat(target)):
                continue
            folder = Path(target).parent
            if held.st_uid == folder.stat().st_uid == owner:
                return folder
    return None
