"""The only place where concrete classes meet: what exists in a node, in which order it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from hearth.access.cached import Definitions
from hearth.access.local import LocalAccess
from hearth.agent import machine
from hearth.agent.agent import Agent
from hearth.agent.consumer import Consumer
from hearth.agent.resources import Amount
from hearth.clock import SystemClock
from hearth.datastore.base import AppFilter
from hearth.datastore.sql import open_datastore
from hearth.drivers.base import Driver, DriverUnavailable
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.credentials import Credentials
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.docker.tls import client_context
from hearth.drivers.process.driver import ProcessDriver
from hearth.logstores.open import open_logstore
from hearth.models.errors import StartUpError
from hearth.models.ids import IdGenerator, machine_id
from hearth.queues.open import open_queue
from hearth.server.api import Api
from hearth.server.asgi import Front
from hearth.server.connection import connection
from hearth.server.cors import allow_origins, parse_origins
from hearth.server.health import Readiness
from hearth.server.invoke import InvokeFront
from hearth.server.limit import BodyLimit
from hearth.settings import Settings
from hearth.telemetry.logs import get_logger

_LOOPBACK: Final = "127.0.0.1"
_MIB: Final = 1024 * 1024
#: Seconds for the answers of calls that were broken off when the grace was over.
_AFTER_GRACE_S: Final = 15

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A node that is ready to serve."""

    app: ASGIApp
    agent: Agent
    consumer: Consumer
    driver: Driver
    readiness: Readiness

    def drain(self) -> None:
        """Take no new work; what runs runs on."""
        self.readiness.drain()
        self.consumer.stop()
        self.agent.drain()

    def abort(self) -> None:
        """Break off what runs."""
        self.readiness.drain()
        self.consumer.stop()
        self.agent.abort()


@contextlib.asynccontextmanager
async def full_node(settings: Settings, port: int) -> AsyncIterator[Node]:
    """A node that serves the API and runs calls. Leaving it drains and removes everything.

    Raises:
        StartUpError: It cannot start; the text says what to do.
    """
    if settings.node_type != "full":
        raise StartUpError(f"FN_NODE_TYPE={settings.node_type}: only full nodes exist in this release")
    origins = parse_origins(settings.api_cors)
    clock = SystemClock()
    next_id = IdGenerator(machine_id(_own_address(), port), clock.now_ms)
    async with contextlib.AsyncExitStack() as stack:
        datastore = await open_datastore(settings.database, wait_s=settings.db_wait_s)
        stack.push_async_callback(datastore.close)
        logs = None
        if settings.logstore_url:
            logs = await open_logstore(settings.logstore_url, wait_s=settings.db_wait_s)
            stack.push_async_callback(logs.close)
        queue = await open_queue(settings.queue, clock, visibility_s=settings.visibility_s)
        stack.push_async_callback(queue.close)
        access = LocalAccess(datastore, queue, clock, logs)
        stack.push_async_callback(access.close)
        definitions = Definitions(access, clock)
        stack.push_async_callback(definitions.close)
        driver = await _open_driver(settings, next_id())
        stack.push_async_callback(driver.close)
        agent = await stack.enter_async_context(
            Agent(driver, access, clock, total=_total(settings), next_id=next_id),
        )
        consumer = Consumer(agent, access, clock)

        async def changed(app_name: str, path: str | None) -> None:
            definitions.forget(app_name, path)
            await agent.refresh(app_name, path)

        get_log = logs.get_log if logs else None
        readiness = Readiness(
            clock,
            {
                "database": lambda: datastore.get_apps(AppFilter(per_page=1)),
                "queue": lambda: queue.settle([]),
                "driver": driver.check,
            },
        )
        api = Api(datastore, clock, lambda: stats(agent), changed=changed, get_log=get_log, readiness=readiness)
        invoke = InvokeFront(agent, definitions, access, clock, next_id)
        async with consumer:
            front = BodyLimit(Front(invoke, api), settings.max_request_size)
            node = Node(allow_origins(front, origins), agent, consumer, driver, readiness)
            try:
                yield node
            finally:
                node.drain()


def stats(agent: Agent) -> dict[str, Any]:
    """The node's counts, in the form of /stats."""
    by_path = {path: _counts(counts) for path, counts in agent.stats.by_path().items()}
    return {**_counts(agent.stats.total), "FunctionStatsMap": by_path}


async def serve(settings: Settings, announce: Callable[[Node, str], None]) -> None:
    """Run a node in the foreground until SIGINT or SIGTERM; a second signal forces the end.

    Args:
        settings: The node's.
        announce: Called with the node and its URL when it accepts requests.

    Raises:
        StartUpError: It cannot start.
    """
    listener = _listen(settings.port)
    port = listener.getsockname()[1]
    async with full_node(settings, port) as node:
        config = uvicorn.Config(
            node.app,
            http=connection(settings.header_timeout_s),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=int(settings.grace_s) + _AFTER_GRACE_S,
            backlog=2048,
        )
        server = _Server(config, lambda: announce(node, f"http://127.0.0.1:{port}"), node, settings.grace_s)
        await server.serve(sockets=[listener])
    _log.info("server stopped")


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to us: the node's own clean-up comes after the last response."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], node: Node, grace_s: float) -> None:
        super().__init__(config)
        self._ready = ready
        self._node = node
        self._grace_s = grace_s

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Take the signals while the server runs."""
        loop = asyncio.get_running_loop()
        for number in uvicorn.server.HANDLED_SIGNALS:
            loop.add_signal_handler(number, self._halt)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets=sockets)
        self._ready()

    def _halt(self) -> None:
        """First signal: drain, for as long as running calls may take. Second: break them off."""
        if self.should_exit:
            _log.warning("Halting at once...")
            self._node.abort()
            self.force_exit = True
            return
        _log.info("Halting...")
        self.should_exit = True
        self._node.drain()
        asyncio.get_running_loop().call_later(self._grace_s, self._node.abort)


async def _open_driver(settings: Settings, instance: str) -> Driver:
    node = _node_name(settings)
    if settings.driver != "process":
        docker = _docker_driver(settings, node, instance)
        try:
            await docker.open()
        except DriverUnavailable as exc:
            await docker.close()
            if settings.driver == "docker":
                raise StartUpError(f"{exc}; start Docker, or set FN_DRIVER=process") from exc
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


def _total(settings: Settings) -> Amount:
    memory, cpu = settings.max_total_memory, settings.max_total_cpu
    if memory is None or cpu is None:
        found = machine.detect()
        memory, cpu = memory or found.memory_mib * _MIB, cpu or found.cpu_milli
    total = Amount(memory // _MIB, cpu)
    machine.check_pools(total)
    return total


def _own_address() -> str:
    """The address of the interface that leads outside; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # RFC 5737: an address for documentation, which nobody has
        address: str = probe.getsockname()[0]
        return address
    _log.warning(
        "could not find non-local ipv4 address to use, using '127.0.0.1' for ids, "
        "if this is a cluster beware of duplicate ids!"
    )
    return _LOOPBACK


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("0.0.0.0", port), backlog=2048, reuse_port=False)
    except OSError as exc:
        raise StartUpError(f"FN_PORT={port}: cannot listen: {exc.strerror}; choose another port") from exc


def _counts(counts: Any) -> dict[str, int]:
    return {
        "Queue": counts.queue,
        "Running": counts.running,
        "Complete": counts.complete,
        "Failed": counts.failed,
    }
