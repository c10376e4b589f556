"""Hosts of a test's own: network namespaces with an address each, on a switch, whose packets can be made to vanish.

Unlike a connection that a proxy cuts, nobody is told: what is sent gets no answer, not even a refusal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_NETWORKS = 200
_FIRST_HOST = 2


class Host:
    """A machine as far as the network is concerned; its files are those of all."""

    def __init__(self, namespace: str, address: str, port: str, switch: str) -> None:
        self.address = address
        self._namespace = namespace
        self._port, self._switch = port, switch

    def command(self, *command: str | Path) -> list[str | Path]:
        """The command, to be run here."""
        return ["nsenter", f"--net=/run/netns/{self._namespace}", "--", *command]

    def lose(self, other: Host, *, sent: bool = True, received: bool = True, share: float = 1.0) -> None:
        """From now on packets to and from another host vanish.

        Args:
            sent: Those that are sent to it.
            received: Those that come from it.
            share: How many of them, by chance.
        """
        some = [] if share == 1.0 else ["-m", "statistic", "--mode", "random", "--probability", str(share)]
        for chain, side, wanted in (("OUTPUT", "-d", sent), ("INPUT", "-s", received)):
            if wanted:
                _run(*self.command("iptables", "-w", "-A", chain, side, other.address, *some, "-j", "DROP"))

    def connected(self, other: Host) -> bool:
        """Whether a connection to another host is held to be alive here."""
        asked = self.command("ss", "-Htn", "state", "established", "dst", other.address)
        return bool(subprocess.run(asked, check=True, capture_output=True).stdout)

    def heal(self) -> None:
        """All packets arrive again."""
        _run(*self.command("iptables", "-w", "-F"))

    def unplug(self) -> None:
        """Pull its cable: it is cut off from everybody."""
        _run("ip", "-n", self._switch, "link", "set", self._port, "down")

    def plug(self) -> None:
        """Put it back."""
        _run("ip", "-n", self._switch, "link", "set", self._port, "up")


class Network:
    """A switch, to which the test itself is connected."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._switch = f"hearth{number}"
        self._hosts: list[str] = []
        self.address = f"10.213.{number}.1"

    def open(self) -> bool:
        """Make it; false if another has this number."""
        if subprocess.run(["ip", "netns", "add", self._switch], capture_output=True).returncode:
            return False
        switch = ["ip", "-n", self._switch]
        _run("ip", "link", "add", self._switch, "type", "veth", "peer", "name", "test", "netns", self._switch)
        _run("ip", "address", "add", f"{self.address}/24", "dev", self._switch)
        _run("ip", "link", "set", self._switch, "up")
        _run(*switch, "link", "add", "bridge", "type", "bridge")
        _run(*switch, "link", "set", "bridge", "up")
        _run(*switch, "link", "set", "test", "master", "bridge", "up")
        return True

    def host(self, name: str) -> Host:
        """A further host."""
        namespace, port = f"{self._switch}-{name}", f"p{len(self._hosts)}"
        address = f"10.213.{self._number}.{_FIRST_HOST + len(self._hosts)}"
        _run("ip", "netns", "add", namespace)
        self._hosts.append(namespace)
        own = ["ip", "-n", namespace]
        _run(*own, "link", "set", "lo", "up")
        _run(*own, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self._switch)
        _run(*own, "address", "add", f"{address}/24", "dev", "eth0")
        _run(*own, "link", "set", "eth0", "up")
        _run("ip", "-n", self._switch, "link", "set", port, "master", "bridge", "up")
        return Host(namespace, address, port, self._switch)

    def close(self) -> None:
        """Remove all of it."""
        subprocess.run(["ip", "link", "delete", self._switch], capture_output=True)
        for namespace in [*self._hosts, self._switch]:
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)


@contextlib.contextmanager
def networked() -> Iterator[Network]:
    """A network without hosts. Where none can be made the test is skipped, but fails where CI=true."""
    network = _made()
    if isinstance(network, str):
        if os.environ.get("CI") == "true":
            pytest.fail(network)
        pytest.skip(network)
    try:
        yield network
    finally:
        network.close()


def _made() -> Network | str:
    """A network, or why there is none."""
    if missing := [tool for tool in ("ip", "ss", "nsenter", "iptables") if shutil.which(tool) is None]:
        return f"no {missing[0]}; tools/engines.sh installs it"
    if os.geteuid():
        return "network namespaces need root"
    for number in range(1, _NETWORKS):
        network = Network(number)
        try:
            if network.open():
                return network
        except subprocess.CalledProcessError as exc:
            network.close()
            return f"no network namespaces here: {exc.stderr.decode().strip()}"
    return "no network namespaces here"


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
