"""Open the driver of a node."""

from __future__ import annotations

import asyncio

from hearth.drivers.base import Driver, DriverUnavailable, FetchImage
from hearth.drivers.local.driver import LocalDriver
from hearth.drivers.local.surroundings import Walls
from hearth.images.unpack import Limits
from hearth.models.errors import StartUpError
from hearth.models.function_network import FunctionNetwork
from hearth.models.principal import AuthMode
from hearth.nodes.driver_choice import Choice, choose, remember
from hearth.nodes.phases import phase_limits
from hearth.nodes.registries import credentials
from hearth.settings import DriverName, Settings
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

_log = get_logger(__name__)


async def open_driver(
    settings: Settings, node: str, instance: str, telemetry: Telemetry, fetch: FetchImage | None = None
) -> Driver:
    """Return the driver of this node, opened; the data folder remembers it.

    Args:
        settings: The node's.
        node: Its id.
        instance: Names this run of it.
        telemetry: Its metrics and spans.
        fetch: Gets images that are not in the data folder.

    Raises:
        StartUpError: It does not work, or the data folder cannot be written to.
    """
    choice = await asyncio.to_thread(choose, settings)
    driver: Driver | None = None
    if choice.name != "process":
        driver = await _open_docker(settings, node, instance, choice, telemetry)
    name: DriverName = "docker" if driver is not None else "process"
    if driver is None:
        driver = await _open_processes(settings, node, telemetry, fetch)
    if choice.name is not None or name == "docker":  # an Engine may just be down: then bundles decide later
        try:
            await asyncio.to_thread(remember, settings, choice, name)
        except BaseException:
            await driver.close()
            raise
    return driver


async def decide(settings: Settings) -> DriverName:
    """Return the driver for nodes that are to share a data folder; the folder remembers it.

    Raises:
        StartUpError: The data folder cannot be written to.
    """
    choice = await asyncio.to_thread(choose, settings)
    if choice.name is not None:
        name = choice.name
    else:
        from hearth.nodes.docker import engine_answers

        name = "docker" if await engine_answers(settings) else "process"
    if choice.name is not None or name == "docker":
        await asyncio.to_thread(remember, settings, choice, name)
    return name


async def _open_docker(
    settings: Settings, node: str, instance: str, choice: Choice, telemetry: Telemetry
) -> Driver | None:
    """Return the driver; ``None`` if no Engine answers, and none has to."""
    from hearth.nodes.docker import docker_driver  # its libraries take a tenth of a second, and 10 MiB

    docker = docker_driver(settings, node, instance, telemetry)
    try:
        await docker.open()
    except DriverUnavailable as exc:
        await docker.close()
        if choice.name is not None:
            raise StartUpError(_why(exc, settings, choice)) from exc
        _log.info("docker is not used, functions run as processes", reason=str(exc))
        return None
    return docker


def _why(exc: DriverUnavailable, settings: Settings, choice: Choice) -> str:
    """Return why the Engine cannot be used; a text that begins with a setting names what to change itself."""
    if str(exc).startswith("FN_"):
        return str(exc)
    if settings.driver == "docker":
        return f"DOCKER_HOST: {exc}; start Docker, or set FN_DRIVER=process"
    where = f"the functions of this data folder run in Docker ({choice.reason})"
    return f"DOCKER_HOST: {exc}; {where}: start it, or set FN_DRIVER=process"


async def _open_processes(settings: Settings, node: str, telemetry: Telemetry, fetch: FetchImage | None) -> Driver:
    if ":" in str(settings.bundles):  # PATH and PYTHONPATH of functions begin there
        raise StartUpError(
            f"FN_DATA_DIR={settings.data}: functions as processes cannot run below a folder with a colon in its name; "
            "choose another"
        )
    processes = LocalDriver(
        settings.bundles,
        node,
        walls=process_walls(settings),
        limits=phase_limits(settings),
        image_limits=Limits(bytes=settings.image_max_bytes, entries=settings.image_max_files),
        sockets=settings.iofs_path,
        freezes=settings.freeze_idle_msecs >= 0,
        telemetry=telemetry,
        fetch=fetch,
        credentials=credentials(settings),
        registries=settings.registries_allowed,
    )
    try:
        await processes.open()
    except DriverUnavailable as exc:
        await processes.close()
        raise StartUpError(str(exc)) from exc
    return processes


def process_walls(settings: Settings) -> Walls:
    """Return the walls around functions as processes."""
    return Walls(
        sandbox=settings.sandbox,
        uids=settings.function_uids,
        max_pids=settings.max_pids,
        max_open_files=settings.max_open_files,
        network=settings.function_network,
        # Tokens keep functions from the control API where nothing else does.
        network_without_tools=FunctionNetwork.HOST if settings.auth is AuthMode.REQUIRED else FunctionNetwork.NONE,
        allowed_networks=settings.function_networks_allowed,
        read_only=settings.readonly_rootfs,
        unprivileged=settings.unprivileged_containers,
        listeners_read_only=not settings.disable_readonly_rootfs,
        listeners_unprivileged=not settings.disable_unprivileged_containers,
        listeners_have_volumes=settings.image_enable_volume,
    )
