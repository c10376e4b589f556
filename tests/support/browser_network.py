"""A network that nothing else changes, for browsers: Chromium aborts its requests whenever an interface comes or goes.

Other tests make networks all the time. A browser of the tests is in a network namespace of its own, which has nothing
but a loopback interface; a node that it is to reach listens there, too.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Creates the namespace, says so, and stays until its stdin is closed.
_HOLD: Final = "ip link set lo up && echo ready && exec cat"
#: Listens in the namespace that it runs in, and gives the socket away.
_LISTEN: Final = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
socket.send_fds(socket.socket(fileno=0), [b"!"], [listener.fileno()])
"""


class BrowserNetwork:
    """A network namespace, which ends with this process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", "no network namespace; it takes root"

    @property
    def enter(self) -> list[str]:
        """The beginning of a command that is to run in the namespace."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on loopback in the namespace."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            subprocess.run([*self.enter, sys.executable, "-c", _LISTEN, str(port)], stdin=theirs.fileno(), check=True)
            _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptor)

    def wrap(self, program: str, folder: Path) -> Path:
        """Write a program that runs another one in the namespace."""
        made = folder / Path(program).name
        made.write_text(f'#!/bin/sh\nexec {" ".join(self.enter)} {program} "$@"\n')
        made.chmod(0o755)
        return made


@functools.cache
def browser_network() -> BrowserNetwork:
    """Return the network of this process."""
    return BrowserNetwork()
