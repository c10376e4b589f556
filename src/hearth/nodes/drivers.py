"""The driver that the settings ask for."""

from __future__ import annotations

import hashlib

from hearth.drivers.base import Driver, DriverUnavailable
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.credentials import Credentials
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.docker.tls import client_context
from hearth.drivers.process.driver import ProcessDriver
from hearth.models.errors import StartUpError
from hearth.settings import Settings


async def open_driver(settings: Settings, instance: str) -> Driver:
    """Docker if it answers, or is asked for; else processes.

    Raises:
        StartUpError: Docker is asked for and does not answer.
    """
    node = _node_name(settings)
    if settings.driver != "process":
        docker = _docker_driver(settings, node, instance)
        try:
            await docker.open()
        except DriverUnavailable as exc:
            await docker.close()
            if settings.driver == "docker":
                raise StartUpError(f"DOCKER_HOST: {exc}; start Docker, or set FN_DRIVER=process") from exc
        else:
            return docker
    processes = ProcessDriver(settings.bundles, node)
    await processes.open()
    return processes


def _docker_driver(settings: Settings, node: str, instance: str) -> DockerDriver:
    return DockerDriver(
        settings.docker_host,
        node=node,
        instance=instance,
        walls=Walls(
            max_pids=settings.max_pids,
            max_open_files=settings.max_open_files,
            networks=tuple(settings.docker_networks.replace(",", " ").split()),
        ),
        credentials=Credentials(settings.docker_auth.get_secret_value(), settings.docker_config_files),
        tls=client_context(settings.docker_cert_path.expanduser()) if settings.docker_tls else None,
        api_version=settings.docker_api_version,
    )


def _node_name(settings: Settings) -> str:
    """Names the node by its data: the same after a restart, another for another node of the machine."""
    return hashlib.blake2b(str(settings.data).encode(), digest_size=6).hexdigest()
