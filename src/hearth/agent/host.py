"""The parts that the containers of a node share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from hearth.access.base import NO_LOGIN_SOURCE, LoginSource
from hearth.access.pins import NoteImage, ignore_image
from hearth.agent.eviction import Standby
from hearth.agent.function import Function
from hearth.agent.probation import Probation
from hearth.agent.quiet import Lag
from hearth.agent.resources import LateAt, Reservation, ResourceTracker
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.permits import StartPermits
from hearth.agent.states import ContainerCounts
from hearth.aio.clock import Clock, pause
from hearth.drivers.base import Container, ContainerSpec, Driver, DriverError, OutOfTime
from hearth.telemetry.app_syslog import Drain, Drains
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry
from hearth.telemetry.tracing import during

#: A container that cannot be removed is tried again after this long, until it is gone.
_REMOVE_AGAIN_S: Final = 1.0

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The driver, the resources and the clock of one node.

    Attributes:
        starts: Permits of containers that start at once.
        scaling: Decides when a function gets another hot container.
        next_id: Makes container ids.
        cold: The counts of cold containers.
        standby: The containers that may give way.
        are_busy: Whether the processors have no time left.
        freeze_idle_s: Seconds without a call after which a container is frozen; ``None``: never.
        logins: The logins of apps at registries.
        note_image: Called with each container that is made, and its function.
        lag: How late the driver's stderr comes.
        probation: Which containers are watched after their answers.
        drains: The syslog servers of apps.
        telemetry: The metrics and spans of the node.
    """

    driver: Driver
    resources: ResourceTracker
    clock: Clock
    starts: StartPermits
    scaling: ScalingPolicy
    next_id: Callable[[], str]
    cold: ContainerCounts = dataclasses.field(default_factory=ContainerCounts)
    standby: Standby[Any] = dataclasses.field(default_factory=Standby)
    are_busy: Callable[[], bool] = lambda: False
    freeze_idle_s: float | None = None
    logins: LoginSource = NO_LOGIN_SOURCE
    note_image: NoteImage = ignore_image
    drains: Drains
    lag: Lag
    probation: Probation
    telemetry: Telemetry

    async def reserve(self, function: Function, late_at: LateAt) -> Reservation:
        """Wait for the memory and CPU of one container of this function.

        Args:
            function: The function.
            late_at: Returns when containers that are kept ready give way to it.
        """
        spec = function.spec
        with during(function.spans.reserve):
            return await self.resources.reserve(
                spec.amount, function.share, is_sync=spec.is_sync, key=spec.hot_key, late_at=late_at
            )

    async def prepare(self, function: Function, environment: Mapping[str, str]) -> Container:
        """Have the image ready and a container created, not yet started."""
        spec = function.spec
        container = await self.driver.prepare(
            ContainerSpec(
                id=self.next_id(),
                image=spec.image,
                env=environment,
                memory_mib=spec.amount.memory_mib,
                cpu_milli=spec.amount.cpu_milli,
                app=spec.ref.app,
                labels=spec.container_labels,
                secrets=spec.secrets.values,
                secrets_as_files=spec.secrets_as_files,
                find_login=functools.partial(self.logins.find, spec.ref.app_name, spec.ref.app_id),
                listens=function.contract.listens,
            )
        )
        self.note_image(spec, container)
        return container

    async def open_drain(self, function: Function) -> Drain | None:
        """Return where the output of a container of this function goes besides its logs.

        Raises:
            SyslogUnavailable: The syslog server of its app cannot be reached.
        """
        url, ref = function.spec.syslog_url, function.ref
        return await self.drains.open(url, f"app_id={ref.app_id},fn_id={ref.id}") if url else None

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
