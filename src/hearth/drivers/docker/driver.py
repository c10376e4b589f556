"""Containers of a Docker Engine (drivers specification 2)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from hearth.drivers.base import (
    Capabilities,
    Container,
    ContainerSpec,
    Driver,
    DriverUnavailable,
    ImageError,
    PhaseLimits,
)
from hearth.drivers.docker.container import EngineContainer, delete
from hearth.drivers.docker.errors import phase
from hearth.drivers.docker.images import Images
from hearth.telemetry.logs import get_logger

NODE_LABEL: Final = "hearth.node"
INSTANCE_LABEL: Final = "hearth.instance"
_PING_S: Final = 10.0
_MIB: Final = 1024 * 1024
_CPU_PERIOD_US: Final = 100_000
#: Threads and processes of one function together.
_MAX_PIDS: Final = 50
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409

_log = get_logger(__name__)


class DockerDriver(Driver):
    """Runs images.

    Args:
        host: The Engine's URL, ``unix://...`` or ``tcp://host:port``.
        node: Names this node; its containers carry it, and leftovers of its earlier runs are found by it.
        instance: Names this run of the node.
        limits: Of each phase of a container's life.
    """

    name = "docker"
    capabilities = Capabilities(limits_memory=True, limits_cpu=True, isolates_network=True, stats=True, images=True)

    def __init__(self, host: str, *, node: str, instance: str, limits: PhaseLimits | None = None) -> None:
        self._host = host
        self._node = node
        self._instance = instance
        self._limits = limits or PhaseLimits()
        self._hostname = socket.gethostname()
        self._docker: aiodocker.Docker | None = None
        self._connector: aiohttp.BaseConnector | None = None
        self._images: Images | None = None
        self._cleaning: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<DockerDriver {self._host}>"

    async def open(self) -> None:
        """Reach the Engine, and remove what earlier runs of this node left."""
        # Every running container holds one connection open (it waits for the exit): no limit of ours on them.
        if self._host.startswith("unix://"):
            self._connector = aiohttp.UnixConnector(self._host.removeprefix("unix://"), limit=0)
            url = "unix://localhost"
        else:
            self._connector = aiohttp.TCPConnector(limit=0)
            url = self._host.replace("tcp://", "http://", 1)
        self._docker = aiodocker.Docker(url=url, connector=self._connector)
        self._images = Images(self._docker, self._limits.pull_s)
        try:
            async with asyncio.timeout(_PING_S):
                await self._docker.version()
                await self._remove_leftovers(self._docker)
        except (TimeoutError, OSError, aiohttp.ClientError, DockerError) as exc:
            raise DriverUnavailable(f"couldn't connect to docker daemon at {self._host}: {exc}") from exc

    async def close(self) -> None:
        """Finish what is being cleaned up, close the connections."""
        if self._images is not None:
            await self._images.close()
        if self._cleaning:
            await asyncio.wait(self._cleaning)
        if self._docker is not None:
            await self._docker.close()
        if self._connector is not None:  # the library leaves a connector that it was given to its giver
            await self._connector.close()

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Make a container; its image is fetched only if the Engine does not have it."""
        docker, images = self._opened()
        config = self._config(spec)
        made = await self._create(docker, spec, config)
        if made is None:
            await images.pull(spec.image)
            made = await self._create(docker, spec, config)
        if made is None:
            raise ImageError(spec.image, "the image vanished after it was pulled")
        return EngineContainer(docker, self._host, made, spec.id, self._limits)

    async def _create(self, docker: aiodocker.Docker, spec: ContainerSpec, config: dict[str, Any]) -> Any:
        """The container, or ``None`` if its image is not here."""
        try:
            async with phase("create", self._limits.create_s):
                try:
                    return await docker.containers.create(config, name=spec.id)
                except DockerError as exc:
                    if exc.status == _NOT_FOUND:
                        return None
                    if exc.status == _CONFLICT:  # an earlier try of ours got through
                        return await docker.containers.get(spec.id)
                    raise
        except BaseException:
            self._clean_up(docker, spec.id)  # the Engine may still be making it
            raise

    def _clean_up(self, docker: aiodocker.Docker, container_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._delete(docker, container_id))
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _delete(self, docker: aiodocker.Docker, container_id: str) -> None:
        try:
            async with asyncio.timeout(self._limits.remove_s):
                await delete(docker, container_id)
        except (TimeoutError, OSError, aiohttp.ClientError, DockerError) as exc:
            _log.error("container may be left behind", container_id=container_id, error=str(exc))

    async def _remove_leftovers(self, docker: aiodocker.Docker) -> None:
        mine = await docker.containers.list(all=True, filters={"label": [f"{NODE_LABEL}={self._node}"]})
        left = [found for found in mine if found["Labels"].get(INSTANCE_LABEL) != self._instance]
        if left:
            _log.info("removing containers of an earlier run", containers=len(left))
        await asyncio.gather(*[delete(docker, found.id) for found in left])

    def _config(self, spec: ContainerSpec) -> dict[str, Any]:
        memory = spec.memory_mib * _MIB
        host_config: dict[str, Any] = {
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": _MAX_PIDS,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            "Init": False,
        }
        if spec.cpu_milli:
            host_config["CpuPeriod"] = _CPU_PERIOD_US
            host_config["CpuQuota"] = spec.cpu_milli * _CPU_PERIOD_US // 1000
        return {
            "Image": spec.image,
            "Hostname": self._hostname,
            "Env": [f"{name}={value}" for name, value in spec.env.items()],
            "Labels": {**spec.labels, NODE_LABEL: self._node, INSTANCE_LABEL: self._instance},
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": host_config,
        }

    def _opened(self) -> tuple[aiodocker.Docker, Images]:
        if self._docker is None or self._images is None:
            raise DriverUnavailable("the driver is not open")
        return self._docker, self._images
