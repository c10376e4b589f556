"""The Docker driver of the settings, in a separate module so that its libraries load only if it is used."""

from __future__ import annotations

import ssl

from hearth.aio.clock import SystemClock
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver, SocketPlace
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.tls import client_context
from hearth.nodes.phases import phase_limits
from hearth.nodes.registries import credentials
from hearth.settings import Settings, is_loopback
from hearth.telemetry.node import Telemetry


def docker_driver(settings: Settings, node: str, instance: str, telemetry: Telemetry) -> DockerDriver:
    """Return the driver, not opened yet."""
    return DockerDriver(
        settings.docker_host,
        node=node,
        instance=instance,
        walls=Walls(
            max_pids=settings.max_pids,
            max_open_files=settings.max_open_files,
            locked_memory=settings.max_locked_memory,
            pending_signals=settings.max_pending_signals,
            message_queue=settings.max_message_queue,
            tmp_mib=settings.max_fs_size_mb,
            tmp_files=settings.max_tmpfs_inodes,
            networks=settings.docker_network_names,
            network=settings.function_network,
            allowed_networks=settings.function_networks_allowed,
            calls_port=0 if is_loopback(settings.address) else settings.port,
            read_only=settings.readonly_rootfs,
            unprivileged=settings.unprivileged_containers,
            listeners_read_only=not settings.disable_readonly_rootfs,
            listeners_unprivileged=not settings.disable_unprivileged_containers,
            listeners_have_volumes=settings.image_enable_volume,
        ),
        limits=phase_limits(settings),
        sockets=SocketPlace(settings.iofs_path, settings.iofs_docker_path),
        credentials=credentials(settings),
        registries=settings.registries_allowed,
        notes=settings.data / "private-images",
        tls=_tls(settings),
        api_version=settings.docker_api_version,
        telemetry=telemetry,
    )


def docker_engine(settings: Settings) -> Engine:
    """Return the Engine, to be closed by the caller."""
    return Engine(settings.docker_host, SystemClock(), tls=_tls(settings), api_version=settings.docker_api_version)


async def engine_answers(settings: Settings) -> bool:
    """Return whether there is an Engine that functions can run in."""
    engine = docker_engine(settings)
    try:
        await engine.ping()
    except DriverUnavailable:
        return False
    finally:
        await engine.close()
    return True


def _tls(settings: Settings) -> ssl.SSLContext | None:
    return client_context(settings.docker_cert_path.expanduser()) if settings.docker_tls else None
