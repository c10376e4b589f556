"""The part of a node that runs calls: the same on full nodes and on runners."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hearth.access.base import StoredWorld
from hearth.access.cache import CachedDefinitions
from hearth.access.fn_cache import CachedFns
from hearth.access.logins import StoredLogins
from hearth.access.pins import Pins
from hearth.access.quota_cache import CachedQuotas
from hearth.access.secret_cache import CachedSecrets
from hearth.agent.agent import Agent
from hearth.aio.clock import Clock
from hearth.async_calls.consumer import Consumer
from hearth.async_calls.dispatcher import Dispatcher
from hearth.authorize.rules import Action, authorize
from hearth.authorize.stored_tokens import StoredTokens
from hearth.drivers.base import Driver
from hearth.models.call import Call
from hearth.models.function import FunctionSpec
from hearth.models.ids import IdGenerator, machine_id
from hearth.models.principal import ANONYMOUS
from hearth.nodes.dashboard import Dashboard, data_of
from hearth.nodes.foundation import Foundation
from hearth.nodes.front import open_front
from hearth.nodes.kept_ready import KeptReadyFunctions
from hearth.nodes.node import Node
from hearth.nodes.stale_series import StaleSeries
from hearth.schedules.scheduler import Scheduler
from hearth.server.api import Api
from hearth.server.api_v1.functions import Functions
from hearth.server.api_v2.functions import FnFunctions
from hearth.server.audit import AuditLog
from hearth.server.call_gates import CallGates
from hearth.server.extensions import Server
from hearth.server.health import Readiness
from hearth.server.invoke import InvokeFront
from hearth.server.keyed_calls import KeyedCalls
from hearth.telemetry.logs import get_logger

if TYPE_CHECKING:
    from hearth.server.callbacks import Callbacks

_LOOPBACK: Final = "127.0.0.1"

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Calls:
    """The parts of a node that run calls."""

    base: Foundation
    world: StoredWorld
    server: Server
    driver: Driver
    definitions: CachedDefinitions
    secrets: CachedSecrets
    quotas: CachedQuotas
    agent: Agent
    functions: Functions
    fns: CachedFns
    fn_functions: FnFunctions
    keyed: KeyedCalls
    invoke: InvokeFront
    kept_ready: KeptReadyFunctions

    async def changed(self, app_name: str, path: str | None) -> None:
        """Take note of a changed route, or of an app of which anything may have changed."""
        if self.base.options.changed is not None:
            await self.base.options.changed(app_name, path)
        self.definitions.forget(app_name, path)
        self.secrets.forget(app_name)
        self.quotas.forget(app_name)
        self.kept_ready.look_soon()
        await self.functions.refresh(app_name, path)
        if path is None:
            self.fns.forget(app_name)
            await self.fn_functions.refresh(app_name)

    def stats(self) -> dict[str, Any]:
        """Return the counts of the node, in the form of /stats."""
        by_path = {path: _counts(counts) for path, counts in self.agent.stats.by_name().items()}
        return {**_counts(self.agent.stats.total), "FunctionStatsMap": by_path}

    async def open_consumer(self, *, quiet_s: float = 0.0) -> Consumer:
        """Start to run async calls, to keep containers ready, and to remove the metrics of deleted functions."""
        base, world, stack = self.base, self.world, self.base.stack
        sending = Sending(self)
        stack.push_async_callback(sending.close)
        await stack.enter_async_context(
            StaleSeries(world.definitions, world.fns, base.clock, base.telemetry.metrics, self._forget)
        )
        await stack.enter_async_context(self.kept_ready)
        consumer = Consumer(
            self.agent,
            world.records,
            world.accepted,
            base.clock,
            self._of_call,
            quiet_s=quiet_s,
            max_misfits=base.settings.max_misfits,
            node=socket.gethostname(),
            send=sending.send,
        )
        return await stack.enter_async_context(consumer)

    async def _of_call(self, call: Call) -> FunctionSpec:
        """Return the function of an accepted call: of a route, whose name is a path, or of a fn."""
        functions = self.functions if call.path.startswith("/") else self.fn_functions
        spec = await functions.of_call(call)
        quotas = await self.quotas.of(call.app_name, call.app_id)
        self.agent.pool.set_quotas(spec, quotas)
        return spec

    def _forget(self, app_name: str, name: str) -> bool:
        """Forget a function that was deleted; false while something of it is still here."""
        functions = self.functions if name.startswith("/") or not name else self.fn_functions
        return functions.forget(app_name, name)

    def node(
        self,
        readiness: Readiness,
        consumer: Consumer,
        api: Api,
        node_type: str,
        dispatcher: Dispatcher | None = None,
        tokens: StoredTokens | None = None,
        audit: AuditLog | None = None,
        dashboard: Dashboard | None = None,
        scheduler: Scheduler | None = None,
    ) -> Node:
        """Return the node that serves an API and these calls."""
        base, server, invoke = self.base, self.server, self.invoke

        def end_waits() -> None:
            api.stop()
            self.keyed.stop()

        authorize(ANONYMOUS, Action.CALL)  # direct calls pass no door: routes decide who may call
        front, shutdown = open_front(
            base, server, invoke, invoke.call, api, self.driver, tokens, audit, data_of(dashboard)
        )
        # Calls take no way around what is installed to see them over ASGI.
        is_direct = not (base.access.origins or server.surrounds_calls)
        return Node(
            front,
            node_type,
            readiness,
            base.telemetry,
            driver=self.driver.name,
            agent=self.agent,
            consumer=consumer,
            dispatcher=dispatcher,
            scheduler=scheduler,
            shutdown=shutdown,
            dashboard=dashboard,
            calls=invoke.handler if is_direct else None,
            end_waits=end_waits,
            changed=self.changed,
            forget_token=None if tokens is None else tokens.forget,
        )


class Sending:
    """Sends records of calls to their destinations. What that takes is imported for the first one."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._callbacks: Callbacks | None = None

    async def send(self, call: Call) -> int:
        """Send a record once. Raises ``HearthError``."""
        if self._callbacks is None:
            from hearth.server.callbacks import Callbacks

            calls, base = self._calls, self._calls.base
            allowed = base.settings.callback_networks
            self._callbacks = Callbacks(calls.world.secrets, calls.invoke.call, base.clock, allowed)
        return await self._callbacks.send(call)

    async def close(self) -> None:
        """Close connections."""
        if self._callbacks is not None:
            await self._callbacks.close()


async def open_calls(
    base: Foundation,
    world: StoredWorld,
    server: Server,
    driver: Driver,
    next_id: Callable[[], str],
    tokens: StoredTokens,
    quotas: CachedQuotas,
    *,
    stale_s: float = 0.0,
    has_room: Callable[[], bool] = lambda: True,
) -> Calls:
    """Open what runs calls.

    Args:
        base: The foundation of the node.
        world: The stored world that the calls belong to.
        server: The additions of the extensions.
        driver: The driver of the containers.
        next_id: Returns a new id.
        tokens: Check the tokens of callers.
        quotas: The quotas of the apps of accepted calls.
        stale_s: Seconds for which definitions are used that cannot be read again.
        has_room: Returns whether the ends of further calls can be kept.
    """
    settings = base.settings
    definitions = CachedDefinitions(world.definitions, base.clock, world.secrets, stale_s=stale_s)
    base.stack.push_async_callback(definitions.close)
    secrets = CachedSecrets(world.secrets, base.clock, stale_s=stale_s)
    pins = Pins(driver.digest_of, world.pins)
    base.stack.push_async_callback(pins.close)
    agent = await base.open_agent(
        driver, world.records, next_id, server, StoredLogins(world.secrets), note_image=pins.note
    )
    functions = Functions(agent.pool, world.definitions, base.options.limits, secrets)
    fns = CachedFns(world.fns, base.clock, world.secrets, stale_s=stale_s)
    base.stack.push_async_callback(fns.close)
    fn_functions = FnFunctions(agent.pool, world.fns, base.options.limits, secrets)
    keyed = KeyedCalls(world.keys, base.clock, settings.max_result_bytes)
    base.stack.push_async_callback(keyed.close)
    invoke = InvokeFront(
        agent,
        functions,
        CallGates(base.access.tokens.with_stored(tokens), base.clock, settings.call_auth),
        definitions,
        world.accepted,
        base.clock,
        next_id,
        tracing=base.telemetry.tracing,
        max_bytes=settings.max_request_size,
        max_held_bytes=settings.max_held_request_size,
        has_room=has_room,
        fns=(fns, fn_functions),
        keyed=keyed,
    )
    kept_ready = KeptReadyFunctions(world.ready, definitions, fns, functions, fn_functions, base.clock)
    return Calls(
        *(base, world, server, driver, definitions, secrets, quotas, agent, functions, fns, fn_functions, keyed),
        *(invoke, kept_ready),
    )


def id_generator(port: int, clock: Clock) -> IdGenerator:
    """Return the generator of the ids of this node's calls and containers."""
    return IdGenerator(machine_id(_own_address(), port), clock.now_ns)


def _own_address() -> str:
    """Return the address of the interface that leads outside; nothing is sent."""
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
