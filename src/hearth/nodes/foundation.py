"""The basis of all parts of a node, checked before any stored data changes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from hearth.access.base import CallRecords, LoginSource
from hearth.access.pins import NoteImage
from hearth.agent.agent import Agent
from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.simple import SimplePolicy
from hearth.aio.clock import Clock, SystemClock
from hearth.authorize.admin_token import admin_token
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.tokens import Tokens
from hearth.contracts.formats import Terms
from hearth.contracts.http_stream.answer import Limits
from hearth.drivers.base import Driver, FetchImage
from hearth.host.cpu_load import Processors
from hearth.models.call_result import ResultLimits
from hearth.models.errors import StartUpError
from hearth.models.function import Amount
from hearth.models.principal import ADMIN, RUNNER
from hearth.nodes.capacity import capacity
from hearth.nodes.drivers import open_driver
from hearth.nodes.identity import held_id
from hearth.nodes.oidc import open_oidc
from hearth.nodes.options import Options
from hearth.nodes.startup_errors import named_errors
from hearth.server.browsers import parse_hosts
from hearth.server.cors import parse_origins
from hearth.server.door import Access
from hearth.server.extensions import Extension, Server, find_extension
from hearth.settings import API, Settings
from hearth.stores.datastore import Datastore
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

_EXTENSIONS: Final = ("FN_EXTENSIONS", "is its package installed, and set up?")
_SCALING: Final[dict[str, Callable[[float], ScalingPolicy]]] = {"adaptive": AdaptivePolicy, "simple": SimplePolicy}


@dataclasses.dataclass(frozen=True, slots=True)
class Foundation:
    """The basis of all parts of a node.

    Attributes:
        stack: Closes what is opened, in reverse order.
        total: The memory and CPU for containers.
    """

    stack: AsyncExitStack
    settings: Settings
    options: Options
    clock: Clock
    telemetry: Telemetry
    access: Access
    total: Amount
    given_extensions: Sequence[Extension]
    named_extensions: Sequence[Extension]

    async def open_server(self, node_type: str, datastore: Datastore | None) -> Server:
        """Return what the extensions add to the node, in their order."""
        server = Server(node_type, datastore, self.stack)
        for extension in self.given_extensions:
            await server.add_extension(extension)
        for extension in self.named_extensions:
            with named_errors(*_EXTENSIONS):
                await server.add_extension(extension)
        return server

    async def open_driver(self, next_id: Callable[[], str], fetch: FetchImage | None = None) -> Driver:
        """Return the driver of the options, or open that of the settings; ``fetch`` gets images that are not here."""
        if self.options.driver is not None:
            return self.options.driver
        node = self.stack.enter_context(held_id(self.settings.data))
        driver = await open_driver(self.settings, node, next_id(), self.telemetry, fetch)
        self.stack.push_async_callback(driver.close)
        return driver

    async def open_agent(
        self,
        driver: Driver,
        records: CallRecords,
        next_id: Callable[[], str],
        server: Server,
        logins: LoginSource,
        note_image: NoteImage,
    ) -> Agent:
        """Return the agent of the options, or start a new one."""
        if self.options.agent is not None:
            return self.options.agent
        settings = self.settings
        agent = Agent(
            driver,
            records,
            self.clock,
            total=self.total,
            next_id=next_id,
            max_starts=settings.max_starts or max(2, os.cpu_count() or 1),
            scaling=_SCALING[settings.scaling_policy](settings.start_delay_s),
            are_busy=Processors(self.clock).are_busy,
            terms=Terms(
                limits=Limits.of(settings.max_hdr_response_size, settings.max_response_size),
                json_lines=settings.json_lines,
            ),
            freeze_idle_s=_freeze_idle_s(settings, driver),
            start_limit_s=(settings.hot_pull_timeout_msecs + settings.hot_start_timeout_msecs) / 1000,
            logins=logins,
            note_image=note_image,
            syslog=settings.app_syslog,
            quotas=settings.quotas,
            lender=self.options.lender,
            part=self.options.part,
            log_limit_bytes=settings.max_log_size_bytes,
            result_limits=ResultLimits(settings.result_ttl, settings.max_result_bytes),
            listeners=server.call_listeners,
            telemetry=self.telemetry,
        )
        await self.stack.enter_async_context(agent)
        if self.options.lender is not None:
            await self.options.lender.connect(agent.pool.resources, driver.cleaned)
        return agent


_log = get_logger(__name__)


def _freeze_idle_s(settings: Settings, driver: Driver) -> float | None:
    """Return after which time without a call containers are frozen; ``None``: never."""
    if settings.freeze_idle_msecs < 0:
        return None
    if not driver.capabilities.freeze:
        _log.warning("idle functions are not frozen: no writable freezer control group", driver=driver.name)
        return None
    return settings.freeze_idle_msecs / 1000


async def lay_foundation(stack: AsyncExitStack, settings: Settings, options: Options) -> Foundation:
    """Check settings and options as far as that is possible without opening anything.

    Raises:
        StartUpError: A setting or an option is not valid.
    """
    if options.agent is not None and options.driver is None:
        raise StartUpError("a ready-made agent needs the driver that it was made with: give both")
    with named_errors(*_EXTENSIONS):
        named = [find_extension(name) for name in settings.extension_names]
    clock = SystemClock()
    runs_calls = settings.node_type != API and options.agent is None
    return Foundation(
        stack=stack,
        settings=settings,
        options=options,
        clock=clock,
        given_extensions=[find_extension(one) if isinstance(one, str) else one for one in options.extensions],
        named_extensions=named,
        access=await _access(stack, settings, clock),
        total=capacity(settings) if runs_calls else Amount(0, 0),
        telemetry=options.ready_telemetry or Telemetry(),
    )


async def _access(stack: AsyncExitStack, settings: Settings, clock: Clock) -> Access:
    origins = parse_origins(settings.api_cors)
    tokens = [
        (ADMIN, await asyncio.to_thread(admin_token, settings)),
        (RUNNER, settings.runner_token.get_secret_value()),
    ]
    return Access(
        mode=settings.auth,
        tokens=Authenticator(Tokens(tokens), WrongTokens(clock), oidc=await open_oidc(stack, settings, clock)),
        hosts=parse_hosts(settings.hosts, settings.auth, settings.control_address),
        origins=origins,
    )
