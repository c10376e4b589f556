"""The three types of node and their parts (nodes specification 1): full, api, runner."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from hearth.access.base import StoredWorld
from hearth.access.quota_cache import CachedQuotas
from hearth.agent.minima import Minima
from hearth.async_calls.dispatcher import Dispatcher
from hearth.authorize.stored_tokens import StoredTokens
from hearth.drivers.base import Driver
from hearth.drivers.local.resolving import Resolver
from hearth.drivers.local.stored import image_store
from hearth.models.errors import APINotSupported, InvokeNotSupported, StartUpError
from hearth.models.route import RouteLimits
from hearth.nodes import registries
from hearth.nodes.calls import id_generator, open_calls
from hearth.nodes.dashboard import data_of, open_dashboard
from hearth.nodes.engine_images import EngineImages
from hearth.nodes.foundation import Foundation, lay_foundation
from hearth.nodes.front import access_warnings, open_front
from hearth.nodes.membership import Membership, Reporter
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.nodes.pinning import pin_existing
from hearth.nodes.stale_series import StaleSeries
from hearth.nodes.stores import Stores, open_stores
from hearth.nodes.tls import client_tls
from hearth.schedules.scheduler import Scheduler
from hearth.server.about import About
from hearth.server.api import Api
from hearth.server.api_v1.nodes import Nodes
from hearth.server.api_v1.schedules import Schedules
from hearth.server.audit import AuditLog
from hearth.server.cancels import Cancels
from hearth.server.fleet import Fleet
from hearth.server.health import Check, Readiness, folder_check
from hearth.server.http.shared import CALLS
from hearth.server.redrives import Redrives
from hearth.server.registry.for_runners import RunnerImages
from hearth.server.registry.registry import Registry
from hearth.server.runner_api import RunnerApi
from hearth.server.scheduled_calls import ScheduledCalls
from hearth.settings import API, FULL, RUNNER, Settings
from hearth.stores.audit.base import AuditStore
from hearth.stores.secrets.vault import Vault
from hearth.stores.tokens.base import TokenStore
from hearth.telemetry.logs import get_logger

_NO_STATS: Final[dict[str, Any]] = {"Queue": 0, "Running": 0, "Complete": 0, "Failed": 0, "FunctionStatsMap": {}}

_IS_A_RUNNER: Final = "runners of Hearth take /invoke and /t themselves; use FN_NODE_TYPE=runner with FN_RUNNER_API_URL"
#: Types of node that today's Fn has, with what to use in their place.
OF_TODAYS_FN: Final = {
    "lb": f"FN_NODE_TYPE=lb: {_IS_A_RUNNER}, and any HTTP balancer before several",
    "pure-runner": f"FN_NODE_TYPE=pure-runner: {_IS_A_RUNNER}",
}

_log = get_logger(__name__)


@contextlib.asynccontextmanager
async def open_node(settings: Settings, port: int, options: Options | None = None) -> AsyncIterator[Node]:
    """Open the node that settings and options describe. Leaving it drains and removes everything.

    Raises:
        StartUpError: The node cannot start; the message says what to do.
    """
    if settings.node_type in OF_TODAYS_FN:
        raise StartUpError(OF_TODAYS_FN[settings.node_type])
    build = {API: _api_node, RUNNER: _runner_node}.get(settings.node_type, _full_node)
    async with AsyncExitStack() as stack:
        base = await lay_foundation(stack, settings, options or Options())
        node = await build(base, port)
        stack.callback(node.drain)
        yield node


async def _full_node(base: Foundation, port: int) -> Node:
    """Build a node that serves the API and runs calls."""
    if base.settings.runner_api_url:
        _log.warning("FN_RUNNER_API_URL is ignored: a full node uses its own database and queue")
    next_id = id_generator(port, base.clock)
    opened: list[Driver] = []

    async def open_driver_once() -> None:
        if not opened:
            opened.append(await base.open_driver(next_id, EngineImages(base.settings).fetch))

    stores = await open_stores(base, open_driver_once)
    (driver,) = opened
    await pin_existing(stores.datastore, driver.resolve)
    server = await base.open_server(FULL, stores.datastore)
    tokens = _stored_tokens(base, stores.datastore)
    calls = await open_calls(base, stores.world, server, driver, next_id, tokens, stores.quotas)
    dispatcher, runners = await _open_runner_api(base, stores)
    consumer = await calls.open_consumer(quiet_s=base.settings.runner_quiet_s)
    checks = {**stores.checks, **_data(base), "driver": driver.check, "async": consumer.check}
    readiness = _readiness(base, checks, driver, stores.vault, calls.agent.pool.minima)
    scheduler, schedules = await _open_scheduler(base, stores, next_id)
    fleet = Fleet(base.clock)
    api = Api(
        stores.datastore,
        base.clock,
        calls.stats,
        changed=calls.changed,
        get_log=stores.get_log,
        readiness=readiness,
        server=server,
        runners=runners,
        vault=stores.vault,
        about=About(driver.name, FULL),
        limits=_limits(base.options, driver),
        metrics=base.telemetry.metrics,
        next_id=next_id,
        forget_token=_forgetting(base, tokens),
        public_url=base.settings.public_url,
        registry=_registry(base),
        images=RunnerImages(base.settings.bundles),
        result_ttl_s=base.settings.result_ttl,
        cancels=Cancels(stores.datastore, base.clock, base.settings.result_ttl, stores.accepted, consumer.cancel),
        redrives=_redrives(base, stores, next_id),
        resolve=driver.resolve,
        schedules=schedules,
        nodes=Nodes(fleet),
    )
    audit = _audit_log(base, stores.datastore, next_id)
    dashboard = await open_dashboard(base, stores.datastore, FULL, driver.name, calls.agent)
    node = calls.node(readiness, consumer, api, FULL, dispatcher, tokens, audit, dashboard, scheduler)
    await _join(fleet, base, node, port, next_id)
    return node


async def _api_node(base: Foundation, port: int) -> Node:
    """Build a node that serves the API, to clients and to runners, and runs nothing."""
    if base.settings.runner_api_url:
        _log.info("shutting down agent configured for api node")
    next_id = id_generator(port, base.clock)
    stores = await open_stores(base, _nothing)
    pulls = registries.pulls(base.settings, base.clock)
    base.stack.push_async_callback(pulls.close)
    resolve = Resolver(base.settings.bundles, pulls).resolve
    await pin_existing(stores.datastore, resolve)
    tokens = _stored_tokens(base, stores.datastore)
    server = await base.open_server(API, stores.datastore)
    await base.stack.enter_async_context(
        StaleSeries(stores.datastore, stores.datastore, base.clock, base.telemetry.metrics)
    )
    readiness = _readiness(base, {**stores.checks, **_data(base)}, stores.vault)
    dispatcher, runners = await _open_runner_api(base, stores)
    scheduler, schedules = await _open_scheduler(base, stores, next_id)
    fleet = Fleet(base.clock)
    api = Api(
        stores.datastore,
        base.clock,
        lambda: _NO_STATS,
        get_log=stores.get_log,
        readiness=readiness,
        refused=dict.fromkeys(CALLS, InvokeNotSupported),
        limits=base.options.limits,
        server=server,
        runners=runners,
        vault=stores.vault,
        about=About("" if base.settings.driver == "auto" else base.settings.driver, API),
        metrics=base.telemetry.metrics,
        next_id=next_id,
        forget_token=_forgetting(base, tokens),
        public_url=base.settings.public_url,
        registry=_registry(base),
        images=RunnerImages(base.settings.bundles),
        result_ttl_s=base.settings.result_ttl,
        cancels=Cancels(stores.datastore, base.clock, base.settings.result_ttl, stores.accepted),
        redrives=_redrives(base, stores, next_id),
        resolve=resolve,
        schedules=schedules,
        nodes=Nodes(fleet),
    )
    audit = _audit_log(base, stores.datastore, next_id)
    dashboard = await open_dashboard(base, stores.datastore, API, "none")
    front, shutdown = open_front(
        base, server, api, _no_calls, api, tokens=tokens, audit=audit, dashboard=data_of(dashboard)
    )
    node = Node(
        front,
        API,
        readiness,
        base.telemetry,
        dispatcher=dispatcher,
        scheduler=scheduler,
        shutdown=shutdown,
        end_waits=api.stop,
        dashboard=dashboard,
    )
    await _join(fleet, base, node, port, next_id)
    return node


async def _runner_node(base: Foundation, port: int) -> Node:
    """Build a node that runs calls and gets everything else from an API node."""
    next_id = id_generator(port, base.clock)
    world = base.options.access
    if world is None:
        world = await base.stack.enter_async_context(await _api_node_of_runner(base))
    records = world.records
    server = await base.open_server(RUNNER, None)
    driver = await base.open_driver(next_id, world.fetch_image)
    tokens = StoredTokens(world.tokens.find_token, base.clock)
    base.stack.push_async_callback(tokens.close)
    calls = await open_calls(
        base,
        world,
        server,
        driver,
        next_id,
        tokens,
        CachedQuotas(world.definitions, base.clock),
        stale_s=base.settings.runner_stale_s,
        has_room=lambda: records.has_room,
    )
    checks = {**_data(base), "driver": driver.check, "api": records.check}
    readiness = _readiness(base, checks, driver, calls.agent.pool.minima)
    pages = Api(
        None,
        base.clock,
        calls.stats,
        readiness=readiness,
        refused=dict.fromkeys(("/v1/", "/v2/"), APINotSupported),
        server=server,
        metrics=base.telemetry.metrics,
    )
    consumer = await calls.open_consumer()
    node = calls.node(readiness, consumer, pages, RUNNER, tokens=tokens)
    if world.report is not None:
        member = await Membership.of(base, node, port, next_id())
        await base.stack.enter_async_context(Reporter(member.report, world.report, node.retire, base.clock))
    return node


async def _join(fleet: Fleet, base: Foundation, node: Node, port: int, next_id: Callable[[], str]) -> None:
    """Let a node list itself among those that report to it."""
    member = await Membership.of(base, node, port, next_id())
    fleet.join(member.report, node.retire)


def _data(base: Foundation) -> dict[str, Check]:
    """Return the check that the data folder takes files, if this node has one."""
    data = base.settings.data
    return {"data": folder_check(data)} if data.is_dir() else {}


def _readiness(base: Foundation, checks: Mapping[str, Check], *warned: Driver | Vault | Minima) -> Readiness:
    fixed = access_warnings(base.settings)
    return Readiness(base.clock, checks, lambda: (*fixed, *(text for one in warned for text in one.warnings)))


def _limits(options: Options, driver: Driver) -> RouteLimits:
    """Return the most that a route of this node may ask for."""
    if driver.capabilities.limits_cpu:
        return options.limits
    reason = "This node cannot limit the CPU of functions (no writable cpu control group): leave cpus out"
    return dataclasses.replace(options.limits, no_cpus=reason)


async def _api_node_of_runner(base: Foundation) -> AbstractAsyncContextManager[StoredWorld]:
    """Return the stored world behind the API node of a runner, to be entered."""
    settings = base.settings
    if not settings.runner_api_url:
        raise StartUpError("No agent started for a runner node, add FN_RUNNER_API_URL to configuration.")
    from hearth.access.remote.client import parse_api_url  # aiohttp, for runners only: a sixth of a start, and 8 MiB
    from hearth.access.remote.world import open_remote

    api_url = parse_api_url(settings.runner_api_url)
    if not (token := settings.runner_token.get_secret_value()):
        raise StartUpError("FN_RUNNER_TOKEN: a runner shows it to its API node; set the same secret on both")
    return open_remote(
        api_url,
        base.clock,
        token=token,
        tls=await asyncio.to_thread(client_tls, settings) if api_url.startswith("https:") else None,
        connect_s=settings.runner_connect_s,
        spool=settings.data / "runner.spool",
        spool_bytes=settings.runner_spool_bytes,
        bundles=settings.bundles,
        telemetry=base.telemetry,
    )


async def _open_runner_api(base: Foundation, stores: Stores) -> tuple[Dispatcher, RunnerApi]:
    """Return what serves runners."""
    dispatcher = Dispatcher(stores.accepted, base.clock, quiet_s=base.settings.runner_quiet_s)
    await base.stack.enter_async_context(dispatcher)
    runners = RunnerApi(
        stores.records, stores.accepted, stores.datastore, base.clock, dispatcher, stores.vault, stores.keys
    )
    base.stack.push_async_callback(runners.close)
    return dispatcher, runners


def _redrives(base: Foundation, stores: Stores, next_id: Callable[[], str]) -> Redrives:
    """Return what makes new calls of dead letters."""
    store = stores.datastore
    return Redrives(store, store, store, stores.accepted, base.clock, next_id, base.options.limits)


async def _open_scheduler(base: Foundation, stores: Stores, next_id: Callable[[], str]) -> tuple[Scheduler, Schedules]:
    """Return what makes the calls of schedules, and what serves the schedules of apps."""
    store = stores.datastore
    calls = ScheduledCalls(store, store, base.options.limits, base.settings.public_url)
    scheduler = Scheduler(store, store, stores.accepted, calls.make, base.clock, next_id, base.telemetry)
    await base.stack.enter_async_context(scheduler)
    return scheduler, Schedules(store, base.clock, next_id, calls.make, scheduler)


def _registry(base: Foundation) -> Registry:
    """Return what serves the images of the data folder."""
    registry = Registry(image_store(base.settings.bundles), base.settings.image_max_bytes)
    base.stack.push_async_callback(registry.close)
    return registry


def _stored_tokens(base: Foundation, store: TokenStore) -> StoredTokens:
    """Return what checks the tokens of a store."""
    tokens = StoredTokens(store.find_token, base.clock, store.note_token_use)
    base.stack.push_async_callback(tokens.close)
    return tokens


def _forgetting(base: Foundation, tokens: StoredTokens) -> Callable[[str], Awaitable[None]]:
    """Return what forgets a revoked token, here and in the other workers of the node."""

    async def forget(token_id: str) -> None:
        tokens.forget(token_id)
        if base.options.revoked is not None:
            await base.options.revoked(token_id)

    return forget


def _audit_log(base: Foundation, store: AuditStore, next_id: Callable[[], str]) -> AuditLog:
    """Return what notes changes and refused requests in a store."""
    audit = AuditLog(store, base.clock, next_id)
    base.stack.push_async_callback(audit.close)
    return audit


async def _nothing() -> None:
    """Do nothing: a node without a driver."""


async def _no_calls(app_name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
    raise InvokeNotSupported
