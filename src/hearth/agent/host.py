"""What the containers of a node share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from hearth.agent.eviction import Standby
from hearth.agent.function import Function
from hearth.agent.gate import StartGate
from hearth.agent.life import Observer
from hearth.agent.meters import ContainerMeter
from hearth.agent.resources import Reservation, ResourceTracker
from hearth.agent.settling import Lag
from hearth.clock import Clock, pause
from hearth.drivers.base import Container, ContainerSpec, Driver, DriverError, OutOfTime
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: A container that cannot be removed is tried again after this long, until it is gone.
_REMOVE_AGAIN_S: Final = 1.0

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The driver, the resources and the clock of one node.

    Attributes:
        starts: Bounds the containers that are being made at once.
        next_id: Makes container ids.
        standby: The containers that may give way.
        are_busy: Whether the processors have no time left.
        lag: How late the driver's stderr comes.
    """

    driver: Driver
    resources: ResourceTracker
    clock: Clock
    starts: StartGate
    next_id: Callable[[], str]
    observe: Observer
    standby: Standby[Any] = dataclasses.field(default_factory=Standby)
    are_busy: Callable[[], bool] = lambda: False
    lag: Lag = dataclasses.field(default_factory=Lag)

    async def reserve(self, function: Function) -> Reservation:
        """Wait for the memory and CPU of one container of this function."""
        route = function.route
        with span("agent_get_resource_token", route.app_name, route.path):
            return await self.resources.reserve(
                route.memory, route.cpu_milli, is_sync=function.is_sync, key=function.key
            )

    def meter(self, function: Function, observe: Observer | None = None) -> Observer:
        """Watches a container's life for the metrics, and tells ``observe``, or else the node's counts."""
        return ContainerMeter(function.route, self.clock, observe or self.observe)

    async def prepare(self, function: Function, environment: Mapping[str, str]) -> Container:
        """Have the image ready and a container made, not yet started."""
        route = function.route
        return await self.driver.prepare(
            ContainerSpec(
                id=self.next_id(),
                image=route.image,
                env=environment,
                memory_mib=route.memory,
                cpu_milli=route.cpu_milli,
                labels=function.labels,
            )
        )

    async def remove(self, container: Container) -> None:
        """Remove it, however long that takes: its memory is not free before it is gone."""
        while True:
            try:
                await container.remove()
            except (OutOfTime, DriverError) as exc:
                _log.error("container not removed, trying again", container_id=container.id, error=str(exc))
                await pause(self.clock, _REMOVE_AGAIN_S)
            else:
                return
