"""What each type of node is made of (nodes specification 1): full, api, runner."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.access.base import DataAccess
from hearth.access.cached import Definitions
from hearth.access.local import LocalAccess
from hearth.access.obsolete import ObsoleteSeries
from hearth.agent import machine
from hearth.agent.agent import Agent
from hearth.agent.consumer import Consumer
from hearth.agent.processors import Processors
from hearth.agent.resources import Amount
from hearth.clock import Clock, SystemClock
from hearth.datastore.base import AppFilter, Datastore
from hearth.datastore.sql import open_datastore
from hearth.datastore.traced import TracedDatastore
from hearth.drivers.base import Driver
from hearth.logstores.base import LogStore
from hearth.logstores.open import open_logstore
from hearth.models.errors import ApiError, APINotSupported, InvokeNotSupported, StartUpError
from hearth.models.ids import IdGenerator, machine_id
from hearth.nodes.blame import DATABASE, LOG_STORE, QUEUE, blamed
from hearth.nodes.drivers import open_driver
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from hearth.server.about import About
from hearth.server.api import Api
from hearth.server.api_v1.calls import GetLog
from hearth.server.asgi import Front, Gate
from hearth.server.cors import allow_origins, parse_origins
from hearth.server.dispatch import Dispatcher
from hearth.server.extensions import Server
from hearth.server.health import Check, Readiness
from hearth.server.invoke import InvokeFront
from hearth.server.limit import BodyLimit
from hearth.server.middleware import Invoke
from hearth.server.runner_api import RunnerApi
from hearth.server.shutdown import ShutdownEndpoint
from hearth.server.traced import Traced
from hearth.settings import API, FULL, RUNNER, Settings
from hearth.telemetry.logs import get_logger

_LOOPBACK: Final = "127.0.0.1"
_MIB: Final = 1024 * 1024
_NO_STATS: Final[dict[str, Any]] = {"Queue": 0, "Running": 0, "Complete": 0, "Failed": 0, "FunctionStatsMap": {}}

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Stores:
    """What a node without an API node above it keeps its data in."""

    datastore: Datastore
    queue: Queue
    logs: LogStore | None
    access: LocalAccess

    def checks(self) -> dict[str, Check]:
        """Whether they answer."""
        return {
            "database": lambda: self.datastore.get_apps(AppFilter(per_page=1)),
            "queue": lambda: self.queue.settle([]),
        }

    @property
    def get_log(self) -> GetLog | None:
        """Finds logs, if the datastore does not."""
        return self.logs.get_log if self.logs else None


def open_node(settings: Settings, port: int, options: Options | None = None) -> AbstractAsyncContextManager[Node]:
    """The node that the settings and options describe. Leaving it drains and removes everything.

    Entering it raises :class:`~hearth.models.errors.StartUpError` where it cannot start; the text says what to do.
    """
    build = {API: api_node, RUNNER: runner_node}.get(settings.node_type, full_node)
    return build(settings, port, options or Options())


@contextlib.asynccontextmanager
async def full_node(settings: Settings, port: int, options: Options) -> AsyncIterator[Node]:
    """A node that serves the API and runs calls."""
    if settings.runner_api_url:
        _log.warning("FN_RUNNER_API_URL is ignored: a full node uses its own database and queue")
    clock = SystemClock()
    next_id = _ids(port, clock)
    async with AsyncExitStack() as stack:
        stores = await _open_stores(stack, settings, options, clock)
        server = await _extended(stack, settings, options, FULL, stores.datastore)
        definitions = Definitions(stores.access, clock)
        stack.push_async_callback(definitions.close)
        driver, agent = await _agent(stack, settings, options, clock, stores.access, next_id, server)

        async def changed(app_name: str, path: str | None) -> None:
            definitions.forget(app_name, path)
            await agent.refresh(app_name, path)

        readiness = Readiness(clock, {**stores.checks(), "driver": driver.check, "async": lambda: consumer.check()})
        dispatcher, runners = await _runner_api(stack, settings, clock, stores)
        api = Api(
            stores.datastore,
            clock,
            lambda: stats(agent),
            changed=changed,
            get_log=stores.get_log,
            readiness=readiness,
            server=server,
            runners=runners,
            about=About(driver.name, settings.bundles),
            limits=options.limits,
        )
        invoke = InvokeFront(agent, definitions, stores.access, clock, next_id)
        await stack.enter_async_context(ObsoleteSeries(stores.access, clock, agent.let_go))
        own = Consumer(agent, stores.access, clock, quiet_s=settings.runner_quiet_s)
        consumer = await stack.enter_async_context(own)
        front = _front(settings, options, server, invoke, invoke.call, api)
        node = Node(front, FULL, readiness, driver.name, agent, consumer, dispatcher)
        stack.callback(node.drain)
        yield node


@contextlib.asynccontextmanager
async def api_node(settings: Settings, port: int, options: Options) -> AsyncIterator[Node]:
    """A node that serves the API, to clients and to runners, and runs nothing."""
    if settings.runner_api_url:
        _log.info("shutting down agent configured for api node")
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        stores = await _open_stores(stack, settings, options, clock)
        server = await _extended(stack, settings, options, API, stores.datastore)
        await stack.enter_async_context(ObsoleteSeries(stores.access, clock))
        readiness = Readiness(clock, stores.checks())
        dispatcher, runners = await _runner_api(stack, settings, clock, stores)
        api = Api(
            stores.datastore,
            clock,
            lambda: _NO_STATS,
            get_log=stores.get_log,
            readiness=readiness,
            refused={"/r/": InvokeNotSupported},
            limits=options.limits,
            server=server,
            runners=runners,
        )
        front = _front(settings, options, server, api, _no_calls, api)
        node = Node(front, API, readiness, dispatcher=dispatcher)
        stack.callback(node.drain)
        yield node


@contextlib.asynccontextmanager
async def runner_node(settings: Settings, port: int, options: Options) -> AsyncIterator[Node]:
    """A node that runs calls, and has everything else from an API node."""
    if not settings.runner_api_url:
        raise StartUpError("No agent started for a runner node, add FN_RUNNER_API_URL to configuration.")
    from hearth.access.api_node import parse_api_url  # aiohttp, for runners only: a sixth of a start, and 8 MiB
    from hearth.access.remote import RemoteAccess

    clock = SystemClock()
    next_id = _ids(port, clock)
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(
            RemoteAccess.open(
                parse_api_url(settings.runner_api_url),
                clock,
                token=settings.runner_token.get_secret_value(),
                connect_s=settings.runner_connect_s,
                spool=settings.data / "runner.spool",
                spool_bytes=settings.runner_spool_bytes,
            )
        )
        definitions = Definitions(access, clock, stale_s=settings.runner_stale_s)
        stack.push_async_callback(definitions.close)
        server = await _extended(stack, settings, options, RUNNER, None)
        driver, agent = await _agent(stack, settings, options, clock, access, next_id, server)
        readiness = Readiness(clock, {"driver": driver.check, "api": access.check})
        refused: dict[str, type[ApiError]] = {"/v1/": APINotSupported}
        pages = Api(None, clock, lambda: stats(agent), readiness=readiness, refused=refused, server=server)
        invoke = InvokeFront(agent, definitions, access, clock, next_id)
        await stack.enter_async_context(ObsoleteSeries(access, clock, agent.let_go))
        consumer = await stack.enter_async_context(Consumer(agent, access, clock))
        gate = Gate(invoke, lambda: access.has_room)
        front = _front(settings, options, server, gate, invoke.call, pages)
        node = Node(front, RUNNER, readiness, driver.name, agent, consumer)
        stack.callback(node.drain)
        yield node


def stats(agent: Agent) -> dict[str, Any]:
    """The node's counts, in the form of /stats."""
    by_path = {path: _counts(counts) for path, counts in agent.stats.by_path().items()}
    return {**_counts(agent.stats.total), "FunctionStatsMap": by_path}


async def _open_stores(stack: AsyncExitStack, settings: Settings, options: Options, clock: Clock) -> _Stores:
    if not (options.datastore or settings.database) or not (options.queue or settings.queue):
        kind = "Api" if settings.node_type == API else "Full"
        raise StartUpError(f"{kind} nodes must configure FN_DB_URL, FN_LOG_URL, FN_MQ_URL.")
    if (datastore := options.datastore) is None:
        with blamed(*DATABASE, settings.database):
            datastore = TracedDatastore(await open_datastore(settings.database, wait_s=settings.db_wait_s))
        stack.push_async_callback(datastore.close)
    logs = options.logs
    if logs is None and settings.logstore_url:
        with blamed(*LOG_STORE, settings.logstore_url):
            logs = await open_logstore(settings.logstore_url, wait_s=settings.db_wait_s)
        stack.push_async_callback(logs.close)
    if (queue := options.queue) is None:
        with blamed(*QUEUE, settings.queue):
            queue = await open_queue(settings.queue, clock, visibility_s=settings.visibility_s)
        stack.push_async_callback(queue.close)
    access = LocalAccess(datastore, queue, clock, logs)
    stack.push_async_callback(access.close)
    return _Stores(datastore, queue, logs, access)


async def _extended(
    stack: AsyncExitStack, settings: Settings, options: Options, node_type: str, datastore: Datastore | None
) -> Server:
    """What the node's extensions have added to it, in their order."""
    server = Server(node_type, datastore, stack)
    for extension in [*options.extensions, *settings.extensions.replace(",", " ").split()]:
        if isinstance(extension, str):
            with blamed("FN_EXTENSIONS", "is its package installed, and set up?"):
                await server.add_extension_by_name(extension)
        else:
            await server.add_extension(extension)
    return server


async def _runner_api(
    stack: AsyncExitStack, settings: Settings, clock: Clock, stores: _Stores
) -> tuple[Dispatcher, RunnerApi]:
    """What serves runners."""
    dispatcher = Dispatcher(stores.access, clock, quiet_s=settings.runner_quiet_s)
    await stack.enter_async_context(dispatcher)
    runners = RunnerApi(stores.access, stores.datastore, clock, dispatcher, settings.runner_token.get_secret_value())
    stack.push_async_callback(runners.close)
    return dispatcher, runners


async def _agent(
    stack: AsyncExitStack,
    settings: Settings,
    options: Options,
    clock: Clock,
    access: DataAccess,
    next_id: Callable[[], str],
    server: Server,
) -> tuple[Driver, Agent]:
    if (driver := options.driver) is None:
        driver = await open_driver(settings, next_id())
        stack.push_async_callback(driver.close)
    agent = Agent(
        driver,
        access,
        clock,
        total=_total(settings),
        next_id=next_id,
        max_starts=max(2, os.cpu_count() or 1),
        are_busy=Processors(clock).are_busy,
        limits=options.limits,
        listeners=server.call_listeners,
    )
    return driver, await stack.enter_async_context(agent)


def _front(
    settings: Settings, options: Options, server: Server, calls: ASGIApp, invoke: Invoke, api: ASGIApp
) -> ASGIApp:
    """All that comes before the application of a node."""
    front = server.surround(Front(calls, server.surround_api(api)), invoke)
    # What runners bring was let in before, or is a log. Only those who know the secret are read.
    exempt = "/v1/runner/" if settings.runner_token.get_secret_value() else ""
    front = BodyLimit(front, settings.max_request_size, exempt)
    front = Traced(allow_origins(front, parse_origins(settings.api_cors)))
    return ShutdownEndpoint(front) if options.shutdown_endpoint else front


async def _no_calls(app_name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
    raise InvokeNotSupported


def _ids(port: int, clock: Clock) -> IdGenerator:
    return IdGenerator(machine_id(_own_address(), port), clock.now_ms)


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


def _counts(counts: Any) -> dict[str, int]:
    return {
        "Queue": counts.queue,
        "Running": counts.running,
        "Complete": counts.complete,
        "Failed": counts.failed,
    }
