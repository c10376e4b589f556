"""Containers of a Docker Engine (drivers specification 2)."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from typing import Final

from aiodocker.exceptions import DockerError

from hearth.clock import Clock, SystemClock
from hearth.drivers.base import (
    Capabilities,
    Container,
    ContainerSpec,
    Driver,
    DriverUnavailable,
    ImageError,
    PhaseLimits,
)
from hearth.drivers.docker.container import EngineContainer
from hearth.drivers.docker.creation import Creation, Networks, Walls
from hearth.drivers.docker.credentials import Credentials
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import CONFLICT, NOT_FOUND, phase
from hearth.drivers.docker.exits import Exits
from hearth.drivers.docker.images import Images
from hearth.drivers.docker.references import InvalidReference, Reference, parse
from hearth.drivers.docker.removal import Remover
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.telemetry.tracing import span

NODE_LABEL: Final = "hearth.node"
INSTANCE_LABEL: Final = "hearth.instance"
#: An image may be cleaned up between its pull and the creation; then it is fetched once more.
_PULLS: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class _Open:
    """What exists while the driver is open."""

    engine: Engine
    images: Images
    remover: Remover
    exits: Exits


class DockerDriver(Driver):
    """Runs images.

    Args:
        host: The Engine's URL, ``unix://...`` or ``tcp://host:port``.
        node: Names this node; its containers carry it, and leftovers of its earlier runs are found by it.
        instance: Names this run of the node.
        limits: Of each phase of a container's life.
        walls: Limits that all containers share.
        credentials: Of registries; none: only public images can be fetched.
        tls: For a ``tcp`` host; ``None``: plain.
        api_version: Of the Engine's API, as ``1.24``; empty: what the Engine offers.
        clock: For the waits between tries.
    """

    name = "docker"
    capabilities = Capabilities(
        limits_memory=True, limits_cpu=True, isolates_network=True, stats=True, stderr_lags=True, images=True
    )

    def __init__(
        self,
        host: str,
        *,
        node: str,
        instance: str,
        limits: PhaseLimits | None = None,
        walls: Walls | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
        api_version: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._host = host
        self._node = node
        self._instance = instance
        self._limits = limits or PhaseLimits()
        self._credentials = credentials or Credentials()
        self._tls = tls
        self._api_version = api_version
        self._clock = clock or SystemClock()
        walls = walls or Walls()
        labels = {NODE_LABEL: node, INSTANCE_LABEL: instance}
        self._creation = Creation(walls, socket.gethostname(), labels)
        self._networks = Networks(walls.networks)
        self._open: _Open | None = None

    def __repr__(self) -> str:
        return f"<DockerDriver {self._host}>"

    async def open(self) -> None:
        """Reach the Engine; remove what earlier runs of this node left, in the background."""
        engine = Engine(self._host, self._clock, tls=self._tls, api_version=self._api_version)
        remover = Remover(engine, self._limits.remove_s)
        exits = Exits(engine, f"{INSTANCE_LABEL}={self._instance}")
        self._open = _Open(engine, Images(engine, self._credentials, self._limits.pull_s), remover, exits)
        await engine.ping()
        await self._credentials.announce()
        remover.clean(lambda: self._leftovers(engine))

    async def check(self) -> None:
        """Ask the Engine for a sign of life."""
        await self._opened().engine.ping()

    async def close(self) -> None:
        """Finish what is being cleaned up, close the connections."""
        if self._open is None:
            return
        opened, self._open = self._open, None
        await opened.images.close()
        await opened.remover.close()
        await opened.exits.close()
        await opened.engine.close()

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Make a container; its image is fetched only if the Engine does not have it."""
        opened = self._opened()
        try:
            reference = parse(spec.image)
        except InvalidReference as exc:
            raise ImageError(spec.image, str(exc)) from exc
        made = await self._make(opened, spec, reference)
        for _ in range(_PULLS):
            if made is not None:
                return made
            await opened.images.pull(spec.image, reference)
            made = await self._make(opened, spec, reference)
        if made is None:
            raise ImageError(spec.image, "the image vanished after it was pulled")
        return made

    async def is_stale(self, container: Container) -> bool:
        """Compare the image that it was made of with the one that has its name now."""
        docker = self._opened().engine.docker
        try:
            made = await docker.containers.get(container.id)
            now = await docker.images.inspect(made["Config"]["Image"])
        except ENGINE_ERRORS:
            return False
        return bool(now["Id"] != made["Image"])

    async def _make(self, opened: _Open, spec: ContainerSpec, reference: Reference) -> Container | None:
        """A container, or ``None`` if its image is not here."""
        network = self._networks.take()
        request: asyncio.Task[str | None] | None = None

        async def attempt() -> str | None:
            nonlocal request
            request = asyncio.get_running_loop().create_task(self._create(opened, spec, reference, network))
            return await asyncio.shield(request)

        try:
            with span("docker_create_container"):
                async with phase("create", self._limits.create_s):
                    engine_id = await opened.engine.call("create", attempt)
        except BaseException:
            opened.remover.abandon(request, spec.id, lambda: self._networks.give_back(network))
            raise
        if engine_id is None:
            self._networks.give_back(network)
            return None
        return EngineContainer(
            opened.engine,
            opened.remover,
            opened.exits,
            engine_id=engine_id,
            container_id=spec.id,
            limits=self._limits,
            on_removed=lambda: self._networks.give_back(network),
        )

    async def _create(
        self, opened: _Open, spec: ContainerSpec, reference: Reference, network: str | None
    ) -> str | None:
        containers = opened.engine.docker.containers
        try:
            made = await containers.create(self._creation.form(spec, reference, network), name=spec.id)
        except DockerError as exc:
            if exc.status == NOT_FOUND and "no such image" in str(exc.message).lower():
                return None
            if exc.status == CONFLICT:  # an earlier try of ours got through
                made = await containers.get(spec.id)
            elif self._creation.learn(exc):
                return await self._create(opened, spec, reference, network)
            else:
                raise
        return made.id

    async def _leftovers(self, engine: Engine) -> list[str]:
        filters = {"label": [f"{NODE_LABEL}={self._node}"]}
        mine = await engine.docker.containers.list(all=True, filters=filters)
        return [found.id for found in mine if found["Labels"].get(INSTANCE_LABEL) != self._instance]

    def _opened(self) -> _Open:
        if self._open is None:
            raise DriverUnavailable("the driver is not open")
        return self._open
