"""A network outside of this machine: a network namespace at the end of a cable, with servers in it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PORT = 8000
ANSWER = "HTTP/1.1 204 Outside"


class Outside:
    """Addresses at the other end, and at ours.

    Attributes:
        public: An address of the internet.
        private: One of a site.
        link: One of a link, as metadata services of clouds have.
        spare: One of the internet that nobody has.
        routed: The beginning of a network of the internet that nobody has.
        ours: The addresses of this machine on the cable.
        cable: The interface of this machine.
    """

    def __init__(self, number: int) -> None:
        low = 4 * (number % 60)
        self.cable = f"hearth{number % 60}"
        self.space = f"hearth-outside-{os.getpid()}"
        self.public, self.private, self.link = f"198.51.100.{low + 2}", f"10.77.{low}.2", f"169.254.77.{low + 2}"
        self.ours = [f"198.51.100.{low + 1}", f"10.77.{low}.1", f"169.254.77.{low + 1}"]
        self.private_network = f"10.77.{low}.0/30"
        self.spare = f"203.0.113.{low + 1}"
        self.routed = f"198.51.{101 + number % 60}"

    def commands(self) -> Iterator[str]:
        """What makes it."""
        theirs = [self.public, self.private, self.link]
        yield f"netns add {self.space}"
        yield f"link add {self.cable} type veth peer name eth0 netns {self.space}"
        for ours, other in zip(self.ours, theirs, strict=True):
            yield f"address add {ours}/30 dev {self.cable}"
            yield f"-netns {self.space} address add {other}/30 dev eth0"
        yield f"link set {self.cable} up"
        yield f"-netns {self.space} link set eth0 up"
        yield f"-netns {self.space} link set lo up"
        yield f"-netns {self.space} route add default via {self.ours[0]}"


@contextlib.contextmanager
def connected() -> Iterator[Outside]:
    """Make it; leaving it takes it away. Needs root."""
    if os.geteuid() != 0:
        pytest.skip("a network of the test's own needs root")
    outside = Outside(os.getpid())
    try:
        for command in outside.commands():
            subprocess.run(["ip", *command.split()], check=True)
        run = ["ip", "netns", "exec", outside.space, sys.executable, str(Path(__file__)), outside.public]
        with subprocess.Popen(run, stdout=subprocess.PIPE) as servers:
            assert servers.stdout is not None
            assert servers.stdout.readline() == b"ready\n"
            yield outside
            servers.kill()
    finally:
        subprocess.run(["ip", "netns", "delete", outside.space], capture_output=True)
        subprocess.run(["ip", "link", "delete", outside.cable], capture_output=True)


def serve(address: str) -> None:
    """Answer HTTP, and every question of DNS with this address."""
    import asyncio
    import socket

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(f"{ANSWER}\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    class Resolver(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
            end = data.index(b"\0", 12) + 5
            head = data[:2] + b"\x81\x80" + data[4:6] + b"\0\1\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address)
            self.transport.sendto(head + data[12:end] + record, peer)  # type: ignore[attr-defined]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.start_server(answer, "0.0.0.0", PORT)
        await loop.create_datagram_endpoint(Resolver, ("0.0.0.0", 53))
        print("ready", flush=True)
        await loop.create_future()

    asyncio.run(main())


def addresses_of_this_machine() -> list[str]:
    """Its IPv4 addresses, but loopback's."""
    shown = json.loads(subprocess.check_output(["ip", "-json", "-4", "address", "show", "scope", "global"]))
    return [info["local"] for link in shown for info in link["addr_info"]]


if __name__ == "__main__":
    serve(sys.argv[1])
