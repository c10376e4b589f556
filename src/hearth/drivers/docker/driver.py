"""Containers of a Docker Engine (drivers specification 2)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from aiodocker.exceptions import DockerError

from hearth.aio.background import Background
from hearth.aio.clock import Clock, SystemClock
from hearth.drivers.base import (
    Capabilities,
    Container,
    ContainerSpec,
    Driver,
    DriverUnavailable,
    ImageError,
    ImageHasVolumes,
    PhaseLimits,
    StartFailed,
)
from hearth.drivers.docker import init, missing_limits
from hearth.drivers.docker.container import EngineContainer
from hearth.drivers.docker.creation import Creation, Walls
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import CONFLICT, NOT_FOUND, phase
from hearth.drivers.docker.exits import Exits
from hearth.drivers.docker.images import Images
from hearth.drivers.docker.networks import Networks
from hearth.drivers.docker.removal import Remover
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.drivers.sockets import SocketFolders, UnixSocket
from hearth.images.registry.credentials import Credentials
from hearth.images.registry.references import InvalidReference, Reference, digest_at, parse
from hearth.models.addresses import IPNetwork
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

NODE_LABEL: Final = "hearth.node"
INSTANCE_LABEL: Final = "hearth.instance"
#: Of the folder of the sockets' folders: the Engine's mounts are the only way into those.
_PRIVATE: Final = 0o700
#: An image may be cleaned up between its pull and the creation; then it is fetched once more.
_PULLS: Final = 2
#: Seconds for the Engine's answer about an image: a deploy waits for it.
_RESOLVE_S: Final = 10.0

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Open:
    """The parts that exist while the driver is open."""

    engine: Engine
    images: Images
    remover: Remover
    exits: Exits


@dataclasses.dataclass(frozen=True, slots=True)
class SocketPlace:
    """The folder in which the sockets of functions are made.

    Attributes:
        parent: A folder of this machine; ``None``: in memory where possible.
        seen_parent: The same folder on the machine of the Engine, if it has another path there.
    """

    parent: Path | None = None
    seen_parent: Path | None = None


class DockerDriver(Driver):
    """Runs images as containers of a Docker Engine.

    Args:
        host: The Engine's URL, ``unix://...`` or ``tcp://host:port``.
        node: The name of this node. It labels the containers, so that later runs find leftovers.
        instance: The name of this run of the node.
        limits: The limits of each phase of a container's life.
        walls: The limits that all containers share.
        sockets: Where the sockets of functions are made.
        credentials: The credentials of registries; without any, only public images can be pulled.
        notes: The folder where images that were pulled with an app's login are noted; ``None`` forgets them.
        registries: The registries that are asked for images; empty: all.
        tls: The TLS context of a ``tcp`` host; ``None`` for a plain connection.
        api_version: The version of the Engine's API, as ``1.24``; empty: the newest that the Engine offers.
        clock: The clock of the waits between tries.
        telemetry: Receives the durations of the Engine's work.
    """

    name = "docker"
    capabilities = Capabilities(
        limits_memory=True,
        limits_cpu=True,
        isolates_network=True,
        stats=True,
        freeze=True,
        stderr_lags=True,
        images=True,
    )

    def __init__(
        self,
        host: str,
        *,
        node: str,
        instance: str,
        limits: PhaseLimits | None = None,
        walls: Walls | None = None,
        sockets: SocketPlace | None = None,
        credentials: Credentials | None = None,
        notes: Path | None = None,
        registries: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
        api_version: str = "",
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._host = host
        self._node = node
        self._instance = instance
        self._limits = limits or PhaseLimits()
        self._credentials = credentials or Credentials()
        self._notes = notes
        self._registries = registries
        self._tls = tls
        self._api_version = api_version
        self._clock = clock or SystemClock()
        self._tracing = (telemetry or Telemetry()).tracing
        walls = walls or Walls()
        labels = {NODE_LABEL: node, INSTANCE_LABEL: instance}
        self._creation = Creation(walls, socket.gethostname(), labels)
        self._max_pids = walls.max_pids
        self._takes_volumes = walls.listeners_have_volumes
        self._unlimited: tuple[str, ...] = ()
        place = sockets or SocketPlace()
        self._sockets = SocketFolders(
            node, self._clock, parent=place.parent, ready_s=self._limits.ready_s, mode=_PRIVATE
        )
        self._seen_parent = place.seen_parent
        self._networks = Networks(walls.networks, walls.network, walls.allowed_networks, walls.calls_port)
        self._cleaning: asyncio.Task[bool] | None = None
        self._requests = Background()  # each is awaited by who made it, or by the remover
        self._open: _Open | None = None

    def __repr__(self) -> str:
        return f"<DockerDriver {self._host}>"

    @property
    def function_subnets(self) -> Sequence[IPNetwork]:
        """Return the addresses of the networks that containers join."""
        return self._networks.subnets

    @property
    def warnings(self) -> Sequence[str]:
        """Return a warning for each kind of isolation, and each limit, that this Engine lacks."""
        unlimited = dict.fromkeys((*self._unlimited, *self._creation.missing))
        return (*self._networks.warnings, *(() if self._creation.has_init else (init.MISSING,)), *unlimited)

    async def open(self) -> None:
        """Connect to the Engine, and remove containers of earlier runs of this node in the background."""
        engine = Engine(self._host, self._clock, tls=self._tls, api_version=self._api_version, tracing=self._tracing)
        remover = Remover(engine, self._limits.remove_s)
        exits = Exits(engine, f"{INSTANCE_LABEL}={self._instance}")
        images = Images(engine, self._credentials, self._limits.pull_s, self._notes, self._registries)
        self._open = _Open(engine, images, remover, exits)
        self._creation.has_init = not init.is_missing(await engine.ping())
        self._unlimited = await missing_limits.look(engine, max_pids=self._max_pids)
        await self._networks.open(engine)
        await asyncio.to_thread(self._sockets.open)
        for warning in self.warnings:
            _log.warning(warning)
        await self._credentials.announce()
        self._cleaning = remover.clean(lambda: self._leftovers(engine))

    async def cleaned(self) -> bool:
        """Wait for the removal that :meth:`open` has started."""
        return self._cleaning is not None and await asyncio.shield(self._cleaning)

    async def check(self) -> None:
        """Check that the Engine answers, and that functions are still kept from private networks."""
        engine = self._opened().engine
        await engine.ping()
        await self._networks.check(engine)

    async def close(self) -> None:
        """Finish the running removals and close the connections."""
        if self._open is None:
            return
        opened, self._open = self._open, None
        await opened.images.close()
        await opened.remover.close()
        await opened.exits.close()
        await self._networks.close()
        await asyncio.to_thread(self._sockets.remove)
        self._sockets.close()
        await opened.engine.close()

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Create a container; pull its image only if the Engine does not have it."""
        opened = self._opened()
        try:
            reference = parse(spec.image)
        except InvalidReference as exc:
            raise ImageError(spec.image, str(exc)) from exc
        socket = self._make_socket(spec)
        with contextlib.ExitStack() as undo:
            if socket is not None:
                undo.callback(socket.close)
            made = await self._make(opened, spec, reference, socket)
            for _ in range(_PULLS):
                if made is not None:
                    break
                await opened.images.pull(spec.image, reference, spec.find_login)
                made = await self._make(opened, spec, reference, socket)
            if made is None:
                raise ImageError(spec.image, "the image vanished after it was pulled")
            undo.pop_all()
        try:
            await opened.images.check_right(spec.image, reference, made.id, spec.find_login)
            if spec.listens and not self._takes_volumes:
                await self._check_volumes(opened, spec, made.id)
        except BaseException:
            self._requests.start(made.remove())
            raise
        return made

    async def resolve(self, image: str) -> str:
        """Ask the Engine under which digest the registry of the reference has the image.

        An image that was built here and never pushed has none: its id means nothing to other machines.
        """
        try:
            reference = parse(image)
            async with asyncio.timeout(_RESOLVE_S):
                found = await self._opened().engine.docker.images.inspect(str(reference))
        except (InvalidReference, TimeoutError, *ENGINE_ERRORS):
            return ""
        return digest_at(reference, found.get("RepoDigests") or ())

    async def digest_of(self, container: Container) -> str:
        """Ask the Engine, as :meth:`resolve` does, for the very image that the container has."""
        docker = self._opened().engine.docker
        try:
            made = await docker.containers.get(container.id)
            found = await docker.images.inspect(made["Image"])
            return digest_at(parse(made["Config"]["Image"]), found.get("RepoDigests") or ())
        except (InvalidReference, *ENGINE_ERRORS):
            return ""

    async def _check_volumes(self, opened: _Open, spec: ContainerSpec, container_id: str) -> None:
        """Check that the image of a container declares no volumes.

        Raises:
            ImageHasVolumes: It does.
        """
        async with phase("create", self._limits.create_s):
            made = await opened.engine.call("inspect", lambda: opened.engine.docker.containers.get(container_id))
        if volumes := made["Config"].get("Volumes"):
            raise ImageHasVolumes(spec.image, sorted(volumes))

    async def is_stale(self, container: Container) -> bool:
        """Compare the image of the container with the image that has its name now."""
        docker = self._opened().engine.docker
        try:
            made = await docker.containers.get(container.id)
            now = await docker.images.inspect(made["Config"]["Image"])
        except ENGINE_ERRORS:
            return False
        return bool(now["Id"] != made["Image"])

    def _make_socket(self, spec: ContainerSpec) -> UnixSocket | None:
        if not spec.listens:
            return None
        try:
            return self._sockets.make(spec.id, owner=None, mode=0o777)  # only the container passes through its parent
        except OSError as exc:
            raise StartFailed(f"the folder of its socket cannot be made: {exc}") from exc

    def _as_the_engine_sees(self, socket: UnixSocket | None) -> str:
        """Return the path of the folder of a socket on the machine of the Engine."""
        if socket is None:
            return ""
        if self._seen_parent is None:
            return str(socket.folder)
        return str(self._seen_parent / socket.folder.relative_to(self._sockets.root.parent))

    async def _make(
        self, opened: _Open, spec: ContainerSpec, reference: Reference, socket: UnixSocket | None
    ) -> Container | None:
        """Create a container; return ``None`` if its image is not here."""
        request: asyncio.Task[str | None] | None = None
        async with phase("create", self._limits.create_s):
            network = await opened.engine.call("network", lambda: self._networks.take(opened.engine))

        async def attempt() -> str | None:
            nonlocal request
            request = self._requests.start(
                self._create(opened, spec, reference, network, self._as_the_engine_sees(socket))
            )
            return await asyncio.shield(request)

        try:
            with opened.engine.span("docker_create_container"):
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
            secret_files=spec.secrets if spec.secrets_as_files else {},
            socket=socket,
        )

    async def _create(
        self, opened: _Open, spec: ContainerSpec, reference: Reference, network: str, sockets: str
    ) -> str | None:
        """Create a container and return its id; ``None`` if its image is not here.

        The digest of a reference is a registry's, or, of an image that was built here and never pushed, its id.
        """
        for image in filter(None, (str(reference), reference.digest)):
            if (made := await self._create_of(opened, spec, image, network, sockets)) is not None:
                return made
        return None

    async def _create_of(
        self, opened: _Open, spec: ContainerSpec, image: str, network: str, sockets: str
    ) -> str | None:
        containers = opened.engine.docker.containers
        try:
            made = await containers.create(self._creation.form(spec, image, network, sockets), name=spec.id)
        except DockerError as exc:
            if exc.status == NOT_FOUND and "no such image" in str(exc.message).lower():
                return None
            if exc.status == CONFLICT:  # an earlier try succeeded, although its answer was an error
                made = await containers.get(spec.id)
            elif self._creation.learn(exc):
                return await self._create_of(opened, spec, image, network, sockets)
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
