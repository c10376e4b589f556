"""The driver that the settings ask for."""

from __future__ import annotations

import asyncio

from hearth.drivers.base import Driver, DriverUnavailable
from hearth.drivers.process.driver import ProcessDriver
from hearth.models.errors import StartUpError
from hearth.nodes.identity import node_id
from hearth.settings import Settings


async def open_driver(settings: Settings, instance: str) -> Driver:
    """Docker if it answers, or is asked for; else processes.

    Raises:
        StartUpError: Docker is asked for and does not answer, or the data folder cannot be written to.
    """
    node = await asyncio.to_thread(node_id, settings.data)
    if settings.driver != "process":
        from hearth.nodes.docker import docker_driver  # its libraries take a tenth of a second, and 10 MiB

        docker = docker_driver(settings, node, instance)
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
