"""The networks that functions join: the operator's, or one that Hearth creates on each Engine.

Hearth's own network is a bridge without traffic between containers. All nodes that use an Engine share it, and none
removes it: another node may be about to start a container there. ``docker network prune`` may remove it, so it is
created again when a container cannot find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import ipaddress
import itertools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import NOT_FOUND
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.models.addresses import IPNetwork
from hearth.models.function_network import FunctionNetwork
from hearth.telemetry.logs import get_logger

NAME: Final = "hearth-functions"
#: The interface on the Engine's machine. The Engine refuses a second network with this name, which decides between
#: nodes that create it at the same time; and firewall rules of the operator can name it.
BRIDGE: Final = "hearth-fn"
LABEL: Final = "hearth.network"
_NO_TRAFFIC_BETWEEN: Final = "com.docker.network.bridge.enable_icc"
_BRIDGE_NAME: Final = "com.docker.network.bridge.name"
_OPEN_LIMIT_S: Final = 30.0
#: SIOCGIFADDR, netdevice(7).
_GET_ADDRESS: Final = 0x8915
_FIREWALLS: Final = ("iptables", "iptables-nft", "iptables-legacy")
_FIREWALL_LIMIT_S: Final = 10.0

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Network:
    """One network as containers are given it: by id, because a name may come to mean another network."""

    id: str
    subnets: tuple[IPNetwork, ...]
    gateways: tuple[str, ...] = ()


class Networks:
    """Spreads containers over networks, because one has a limited number of addresses.

    Args:
        names: The operator's networks; empty: Hearth's own.
        mode: What functions may reach where the operator names no network; ``None``: the internet if the Engine keeps
            containers apart, else nothing.
    """

    def __init__(self, names: Sequence[str], mode: FunctionNetwork | None) -> None:
        self._names = tuple(names)
        self._mode = mode
        self._used: dict[str, int] = {}
        self._subnets: tuple[IPNetwork, ...] = ()
        self._is_own = False
        self.warnings: tuple[str, ...] = ()

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """The addresses of functions."""
        return self._subnets

    async def open(self, engine: Engine) -> None:
        """Find or create the networks.

        Raises:
            DriverUnavailable: A network does not exist or cannot be created.
        """
        try:
            async with asyncio.timeout(_OPEN_LIMIT_S):
                if self._names:
                    self._use([await _find(engine, name) for name in self._names])
                elif self._mode in (FunctionNetwork.NONE, FunctionNetwork.HOST):
                    self._use([_Network(self._mode.value, ())])
                else:
                    await self._open_own(engine)
        except TimeoutError as exc:
            raise DriverUnavailable(f"the Docker Engine did not list its networks in {_OPEN_LIMIT_S:g} s") from exc
        except ENGINE_ERRORS as exc:
            raise DriverUnavailable(f"the Docker Engine does not list its networks: {exc}") from exc

    async def take(self, engine: Engine) -> str:
        """Return the network with the fewest containers, the first of equals. Hearth's own is created if it is gone.

        Raises:
            DriverUnavailable: It cannot be created.
        """
        # A network with containers cannot be removed, and lists of networks are slow in an Engine under load.
        is_unused = not any(self._used.values())
        if self._is_own and is_unused and not await engine.docker.networks.list(filters={"id": list(self._used)}):
            _log.warning("the network of functions was removed, creating it again", network=NAME)
            await self.open(engine)
        network = min(self._used, key=self._used.__getitem__)
        self._used[network] += 1
        return network

    def give_back(self, network: str) -> None:
        """Count one container less in it."""
        if network in self._used:
            self._used[network] -= 1

    def _use(self, networks: Sequence[_Network]) -> None:
        self._used = {network.id: self._used.get(network.id, 0) for network in networks}
        self._subnets = tuple(subnet for network in networks for subnet in network.subnets)

    async def _open_own(self, engine: Engine) -> None:
        try:
            network = await engine.call("network", lambda: _own(engine))
            reason = await asyncio.to_thread(why_not_separated, await _firewall(engine), network.gateways)
        except DockerError as exc:
            reason = f"the network {NAME} cannot be created: {exc.message}"
        self._is_own = reason is None
        if reason is None:
            self._use([network])
            return
        advice = "set FN_FUNCTION_NETWORK=none, or name networks of your own in FN_DOCKER_NETWORKS"
        if self._mode is FunctionNetwork.INTERNET:
            raise DriverUnavailable(f"FN_FUNCTION_NETWORK=internet: {reason}; {advice}")
        self.warnings = (f"functions have no network: {reason}; {advice}",)
        self._use([_Network(FunctionNetwork.NONE.value, ())])


async def diagnose(engine: Engine) -> str | None:
    """Return why the Engine does not keep functions apart, as far as that shows without creating a network."""
    try:
        found = await _look(engine)
        if found is None:
            return None
        return await asyncio.to_thread(why_not_separated, await _firewall(engine), found.gateways)
    except ENGINE_ERRORS as exc:
        return f"the Docker Engine does not list its networks: {exc}"


async def _own(engine: Engine) -> _Network:
    """Return Hearth's network; create it where there is none.

    Raises:
        DockerError: It cannot be created, or another network has its name.
    """
    if (found := await _look(engine)) is not None:
        return found
    try:
        await engine.docker.networks.create(_form())
    except DockerError:
        if (found := await _look(engine)) is None:  # else another node was faster
            raise
        return found
    _log.info("network of functions created", network=NAME, bridge=BRIDGE)
    return await _look(engine) or await _own(engine)


def _form() -> dict[str, Any]:
    return {
        "Name": NAME,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": {LABEL: "functions"},
        "Options": {_NO_TRAFFIC_BETWEEN: "false", _BRIDGE_NAME: BRIDGE},
    }


async def _look(engine: Engine) -> _Network | None:
    for found in await engine.docker.networks.list(filters={"label": [f"{LABEL}=functions"]}):
        if found["Name"] == NAME and (found.get("Options") or {}).get(_NO_TRAFFIC_BETWEEN) == "false":
            return _network(found)
    return None


async def _find(engine: Engine, name: str) -> _Network:
    try:
        found = await engine.docker.networks.get(name)
        shown = await found.show()
    except DockerError as exc:
        if exc.status == NOT_FOUND:
            raise DriverUnavailable(
                f"FN_DOCKER_NETWORKS: the Docker Engine has no network {name}; create it (docker network create {name})"
            ) from exc
        raise
    # The Engine's own networks (none, host, bridge) are known by name: HostConfig takes no id of these.
    network = _network(shown)
    return dataclasses.replace(network, id=name) if name in ("none", "host", "bridge") else network


def _network(shown: Mapping[str, Any]) -> _Network:
    configs = (shown.get("IPAM") or {}).get("Config") or ()
    subnets = [config["Subnet"] for config in configs if config.get("Subnet")]
    gateways = [config["Gateway"] for config in configs if config.get("Gateway")]
    return _Network(
        shown["Id"], tuple(ipaddress.ip_network(subnet, strict=False) for subnet in subnets), tuple(gateways)
    )


async def _firewall(engine: Engine) -> str:
    """Return what filters the Engine's bridges, by newer Engines; empty where it does not say."""
    info = await engine.docker.system.info()
    return str((info.get("FirewallBackend") or {}).get("Driver") or "")


def why_not_separated(firewall: str, gateways: Sequence[str]) -> str | None:
    """Return why containers on Hearth's bridge reach each other; ``None`` where they do not, or nobody can tell.

    Only root on the Engine's own machine can look. An Engine that was started with ``--iptables=false`` creates the
    same network, and filters nothing. Blocks: for a thread.

    Args:
        firewall: What filters, by the Engine; empty: iptables.
        gateways: The addresses of the Engine's bridge: where ours has another one, the Engine is elsewhere.
    """
    if "nftables" in firewall or os.geteuid() != 0 or _address_of(BRIDGE) not in gateways:
        return None
    try:
        filtered = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() == "1"
    except OSError:
        filtered = False
    if not filtered:
        return "the kernel does not filter bridges (br_netfilter), so containers would reach each other"
    looked = False
    for program in _FIREWALLS:
        if (path := shutil.which(program)) is None:
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run([path, "-w", "5", "-S"], capture_output=True, text=True, timeout=_FIREWALL_LIMIT_S)
            looked |= done.returncode == 0
            rules = [line.split() for line in done.stdout.splitlines()]
            if any(_drops_between(rule) for rule in rules):
                return None
    if not looked:
        return None
    return "the Docker Engine does not keep containers apart (it may run with --iptables=false)"


def _address_of(interface: str) -> str:
    """Return the address of an interface of this machine; empty where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _GET_ADDRESS, struct.pack("256s", interface.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _drops_between(rule: Sequence[str]) -> bool:
    pairs = set(itertools.pairwise(rule))
    return {("-i", BRIDGE), ("-o", BRIDGE), ("-j", "DROP")} <= pairs
