"""The networks that functions join: the operator's, or one that Hearth creates on each Engine.

Hearth's own network is a bridge without traffic between containers. All nodes that use an Engine and allow the same
private networks share it, and none removes it: another node may be about to start a container there. ``docker network
prune`` may remove it, so it is created again when a container cannot find it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.aio.clock import pause
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import NOT_FOUND
from hearth.drivers.docker.firewall import Firewall, NotClosed, OutOfReach, separating_rules
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.models.addresses import IPNetwork
from hearth.models.function_network import FunctionNetwork
from hearth.telemetry.logs import get_logger

NAME: Final = "hearth-functions"
#: The interface on the Engine's machine. The Engine refuses a second network with this name, which decides between
#: nodes that create it at the same time; and firewall rules of the operator can name it.
BRIDGE: Final = "hearth-fn"
OPEN: Final = "functions reach private networks and services of the Docker Engine's machine"
CLOSE_THEM: Final = "close them in the firewall of that machine, or run the node as root there"
_OTHER_NETWORKS: Final = "set FN_FUNCTION_NETWORK=none, or name networks of your own in FN_DOCKER_NETWORKS"
LABEL: Final = "hearth.network"
_ALLOWED: Final = "hearth.allowed"
_NO_TRAFFIC_BETWEEN: Final = "com.docker.network.bridge.enable_icc"
_BRIDGE_NAME: Final = "com.docker.network.bridge.name"
_OPEN_LIMIT_S: Final = 30.0
#: Characters of a digest in the names of a network that allows private ones: an interface's name has room for no more.
_DIGEST: Final = 5

#: Pauses before looks for a network that another node creates at this moment.
_LOOK_PAUSES_S: Final = (0.0, 0.1, 0.2, 0.4, 0.8)

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Network:
    """One network as containers are given it: by id, because a name may come to mean another network."""

    id: str
    subnets: tuple[IPNetwork, ...]
    gateways: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """The names of Hearth's own network on an Engine and of its interface: nodes that allow the same share them."""

    name: str
    bridge: str
    allowed: str = ""

    @classmethod
    def of(cls, allowed: Sequence[ipaddress.IPv4Network]) -> Own:
        """Return the network whose functions may reach these private networks."""
        if not allowed:
            return cls(NAME, BRIDGE)
        text = " ".join(sorted(map(str, allowed)))
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
        return cls(f"{NAME}-{digest}", f"{BRIDGE}-{digest}", text)


class Networks:
    """Spreads containers over networks, because one has a limited number of addresses.

    Args:
        names: The operator's networks; empty: Hearth's own.
        mode: What functions may reach where the operator names no network; ``None``: the internet if the Engine keeps
            containers apart, else nothing.
        allowed: The private networks that functions may reach.
        port: Where this node answers function calls to addresses of the machine; 0: nowhere.
    """

    def __init__(
        self,
        names: Sequence[str],
        mode: FunctionNetwork | None,
        allowed: Sequence[ipaddress.IPv4Network] = (),
        port: int = 0,
    ) -> None:
        self._names = tuple(names)
        self._mode = mode
        self._own = Own.of(allowed)
        self._firewall = Firewall(self._own.bridge, allowed, port)
        self._used: dict[str, int] = {}
        self._subnets: tuple[IPNetwork, ...] = ()
        self._is_own = False
        self._is_closed = False
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
            _log.warning("the network of functions was removed, creating it again", network=self._own.name)
            await self.open(engine)
        await self.check(engine)
        network = min(self._used, key=self._used.__getitem__)
        self._used[network] += 1
        return network

    async def check(self, engine: Engine) -> None:
        """Set the rules of the firewall again where another program has reset them.

        Raises:
            DriverUnavailable: They cannot be set.
        """
        if self._is_closed and not await asyncio.to_thread(self._firewall.is_applied):
            _log.warning("the firewall rules of functions were removed, setting them again", network=self._own.name)
            await self.open(engine)

    async def close(self) -> None:
        """Remove the rules of the firewall that no other node needs."""
        await asyncio.to_thread(self._firewall.remove)

    def give_back(self, network: str) -> None:
        """Count one container less in it."""
        if network in self._used:
            self._used[network] -= 1

    def _use(self, networks: Sequence[_Network]) -> None:
        self._used = {network.id: self._used.get(network.id, 0) for network in networks}
        self._subnets = tuple(subnet for network in networks for subnet in network.subnets)

    async def _open_own(self, engine: Engine) -> None:
        reason = unclosed = None
        try:
            network = await engine.call("network", lambda: _create(engine, self._own))
            await asyncio.to_thread(self._firewall.apply, await _backend(engine), network.gateways)
        except DockerError as exc:
            reason = f"the network {self._own.name} cannot be created: {exc.message}"
        except NotClosed as exc:
            reason = str(exc)
        except OutOfReach as exc:
            unclosed = f"{OPEN}: {exc}"
            if self._own.allowed:  # all are: other nodes know the addresses of these functions by the usual network
                self._own = Own.of(())
                await self._open_own(engine)
                return
        self._is_own = reason is None
        self._is_closed = reason is None and unclosed is None
        if self._mode is FunctionNetwork.INTERNET and reason is not None:
            raise DriverUnavailable(f"FN_FUNCTION_NETWORK=internet: {reason}; {_OTHER_NETWORKS}")
        if self._mode is FunctionNetwork.INTERNET and unclosed is not None:
            raise DriverUnavailable(f"FN_FUNCTION_NETWORK=internet: {unclosed}; unset it and {CLOSE_THEM}")
        if reason is None:
            self.warnings = () if unclosed is None else (f"{unclosed}; {CLOSE_THEM}",)
            self._use([network])
            return
        self.warnings = (f"functions have no network: {reason}; {_OTHER_NETWORKS}",)
        self._use([_Network(FunctionNetwork.NONE.value, ())])


async def diagnose(engine: Engine, allowed: Sequence[ipaddress.IPv4Network]) -> tuple[str, str] | None:
    """Return what is missing in the network of functions, and advice, as far as that shows without creating it."""
    own = Own.of(allowed)
    try:
        if (found := await _look(engine, own)) is not None:
            await asyncio.to_thread(separating_rules, own.bridge, await _backend(engine), found.gateways)
    except OutOfReach as exc:
        return f"{OPEN}: {exc}", CLOSE_THEM
    except NotClosed as exc:
        return str(exc), "start the Engine with iptables; until then functions have no network"
    except ENGINE_ERRORS as exc:
        return f"the Docker Engine does not list its networks: {exc}", "see the log of the Engine"
    return None


async def _create(engine: Engine, own: Own) -> _Network:
    """Return Hearth's network; create it where there is none.

    Raises:
        DockerError: It cannot be created, or another network has its name.
    """
    if (found := await _look(engine, own)) is not None:
        return found
    try:
        await engine.docker.networks.create(_form(own))
    except DockerError:
        for pause_s in _LOOK_PAUSES_S:  # another node may be faster, and the Engine lists a network once it is complete
            await pause(engine.clock, pause_s)
            if (found := await _look(engine, own)) is not None:
                return found
        raise
    _log.info("network of functions created", network=own.name, bridge=own.bridge)
    return await _look(engine, own) or await _create(engine, own)


def _form(own: Own) -> dict[str, Any]:
    return {
        "Name": own.name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": {LABEL: "functions", _ALLOWED: own.allowed},
        "Options": {_NO_TRAFFIC_BETWEEN: "false", _BRIDGE_NAME: own.bridge},
    }


async def _look(engine: Engine, own: Own) -> _Network | None:
    for found in await engine.docker.networks.list(filters={"label": [f"{LABEL}=functions"]}):
        if (
            (found.get("Labels") or {}).get(_ALLOWED, "") == own.allowed
            and found["Name"] == own.name
            and (found.get("Options") or {}).get(_NO_TRAFFIC_BETWEEN) == "false"
        ):
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


async def _backend(engine: Engine) -> str:
    """Return what filters the Engine's bridges, by newer Engines; empty where it does not say."""
    info = await engine.docker.system.info()
    return str((info.get("FirewallBackend") or {}).get("Driver") or "")
