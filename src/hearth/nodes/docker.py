"""The Docker driver that the settings ask for. A module of its own: its libraries are loaded only where it is used."""

from __future__ import annotations

from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.credentials import Credentials
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.docker.tls import client_context
from hearth.settings import Settings


def docker_driver(settings: Settings, node: str, instance: str) -> DockerDriver:
    """The driver, not opened yet."""
    return DockerDriver(
        settings.docker_host,
        node=node,
        instance=instance,
        walls=Walls(
            max_pids=settings.max_pids,
            max_open_files=settings.max_open_files,
            networks=tuple(settings.docker_networks.replace(",", " ").split()),
            read_only=settings.readonly_rootfs,
            unprivileged=settings.unprivileged_containers,
        ),
        credentials=Credentials(settings.docker_auth.get_secret_value(), settings.docker_config_files),
        tls=client_context(settings.docker_cert_path.expanduser()) if settings.docker_tls else None,
        api_version=settings.docker_api_version,
    )
