"""The containers of a node: per function a launcher with hot containers, per cold call one container."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from hearth.access.base import NO_LOGIN_SOURCE, LoginSource
from hearth.access.pins import NoteImage, ignore_image
from hearth.agent.call import ActiveCall, Draining
from hearth.agent.cap import ContainerCap
from hearth.agent.cold import ColdContainer
from hearth.agent.function import Function
from hearth.agent.host import Host
from hearth.agent.hot import HotContainer
from hearth.agent.launcher import HotLauncher
from hearth.agent.lending import WHOLE, Lender, Part
from hearth.agent.minima import Minima
from hearth.agent.probation import Probation
from hearth.agent.quiet import Lag
from hearth.agent.resources import ResourceTracker, Shortage
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.permits import StartPermits
from hearth.agent.shares import Share, Shares
from hearth.agent.states import ContainerState
from hearth.agent.stats import CallStats
from hearth.aio.clock import Clock
from hearth.contracts.formats import USUAL, Terms
from hearth.drivers.base import Driver
from hearth.models.function import NOTHING, Amount, FunctionRef, FunctionSpec
from hearth.models.quotas import Quotas
from hearth.telemetry.app_syslog import Drains, Reach
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

#: Seconds between two looks for functions that nobody calls any more.
_SWEEP_S: Final = 60.0
#: Seconds that containers have to go after running calls were aborted.
_ABANDON_S: Final = 15.0

_log = get_logger(__name__)


class Pool:
    """Functions, their launchers and containers. An async context manager: leaving it waits until all are removed.

    Attributes:
        resources: Memory and CPU of this node.
        shares: What apps have of it.
        functions: The functions, ready to be called, by the hot keys of their specs.
        launchers: Their launchers, likewise.
        minima: The containers that functions keep ready.
        room_changed: Set when memory or CPU may have become free. Who waits for room clears it.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        stats: CallStats,
        telemetry: Telemetry,
        *,
        total: Amount,
        next_id: Callable[[], str],
        max_starts: int,
        scaling: ScalingPolicy,
        are_busy: Callable[[], bool],
        quotas: Quotas,
        lender: Lender | None = None,
        terms: Terms = USUAL,
        freeze_idle_s: float | None = None,
        logins: LoginSource = NO_LOGIN_SOURCE,
        note_image: NoteImage = ignore_image,
        part: Part = WHOLE,
        syslog: Reach = "network",
    ) -> None:
        self.resources = ResourceTracker(total, self.relieve, self._room_changed, lender)
        self.minima = Minima(total, telemetry.metrics, part)
        self._part = part
        self.shares = Shares(quotas, telemetry.metrics, self.resources.serve)
        self.room_changed = asyncio.Event()
        self._stats = stats
        self._terms = terms
        lag = Lag()
        self.host = Host(
            lag=lag,
            probation=Probation(lag, sees_unread=driver.capabilities.unread_input),
            driver=driver,
            resources=self.resources,
            clock=clock,
            starts=StartPermits(max_starts, clock, changed=self.minima.look_soon),
            scaling=scaling,
            are_busy=are_busy,
            freeze_idle_s=freeze_idle_s,
            logins=logins,
            note_image=note_image,
            drains=Drains(clock, telemetry.metrics, syslog),
            next_id=next_id,
            telemetry=telemetry,
        )
        self.functions: dict[bytes, Function] = {}
        self.launchers: dict[bytes, HotLauncher] = {}
        self._caps: dict[FunctionRef, ContainerCap] = {}
        self._late_timer: asyncio.TimerHandle | None = None
        self._cold: set[ColdContainer] = set()
        self._living: set[asyncio.Task[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._abandon_timer: asyncio.TimerHandle | None = None
        self._group = asyncio.TaskGroup()

    def __repr__(self) -> str:
        return f"<Pool functions={len(self.launchers)} containers={self.containers} {self.resources!r}>"

    async def __aenter__(self) -> Pool:
        await self._group.__aenter__()
        self._sweep_later()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._group.__aexit__(None, None, None)
        await self.host.drains.close()
        if self._abandon_timer is not None:
            self._abandon_timer.cancel()

    @property
    def containers(self) -> dict[str, int]:
        """Return how many containers are in each state, by its name."""
        counts = [launcher.counts for launcher in self.launchers.values()] + [self.host.cold]
        return {state.value: sum(one[state] for one in counts) for state in ContainerState}

    # -- functions ------------------------------------------------------------------------------

    def function(self, spec: FunctionSpec) -> Function:
        """Return a function, ready to be called."""
        function = self.functions.get(spec.hot_key)
        if function is None:
            share = self.shares.of(spec.ref)
            cap = self._caps.get(spec.ref)
            if cap is None:
                cap = self._caps[spec.ref] = ContainerCap(self.host.clock.monotonic)
                cap.limit(self._most(spec))
            function = self.functions[spec.hot_key] = Function(
                spec, self._stats, self.host.telemetry, share, cap, self._terms
            )
        return function

    def accepted(self, spec: FunctionSpec) -> Function:
        """Return the function of an accepted call. Its bounds count until the definition of the function is seen."""
        function = self.function(spec)
        if not function.cap.is_defined:
            function.cap.limit(self._most(spec))
        return function

    def set_quotas(self, spec: FunctionSpec, quotas: Quotas) -> Share:
        """Let the quotas of a function's app be in force, over the defaults of the node. Return its share."""
        share = self.function(spec).share  # a share that nobody refers to would be forgotten
        share.set_quotas(self.shares.in_force(quotas))
        return share

    def refs(self) -> set[FunctionRef]:
        """Return the functions of which something is here: containers, waiting calls, what was learned about them."""
        known = {function.ref for function in self.functions.values()}
        return known | {launcher.function.ref for launcher in self.launchers.values()} | self.host.probation.suspects

    def retire(self, spec: FunctionSpec) -> None:
        """End the containers of a function that has changed or was deleted: idle ones now, busy ones after their call.

        Calls that wait for this version still run.
        """
        if (launcher := self.launchers.get(spec.hot_key)) is not None:
            self._drain(launcher)

    def present(self, spec: FunctionSpec) -> None:
        """Keep the containers of a function, as many as it says: this is its present version, perhaps once more."""
        if spec.max_instances or spec.ref in self._caps:
            cap = self.function(spec).cap
            cap.is_defined = True
            cap.limit(self._most(spec))
        launcher = self.launchers.get(spec.hot_key)
        if launcher is None and spec.min_instances and not self.minima.is_stopped:
            launcher = self.launcher(self.function(spec))
        if launcher is not None:
            launcher.revive()
            self.minima.want(launcher, self._part.of(spec.min_instances))

    def _most(self, spec: FunctionSpec) -> int | None:
        """Return how many containers of a function this worker may have: at least one, to take its calls."""
        return max(1, self._part.of(spec.max_instances)) if spec.max_instances else None

    def _drain(self, launcher: HotLauncher) -> None:
        self.minima.drop(launcher)
        launcher.drain()

    async def retire_stale(self, spec: FunctionSpec) -> None:
        """End containers whose image was rebuilt under the same name: idle ones now, busy ones after their call."""
        if (launcher := self.launchers.get(spec.hot_key)) is not None:
            await launcher.retire_stale()

    def forget(self, labels: tuple[str, str]) -> bool:
        """Forget the functions with these labels, which were deleted.

        Return False while something of one is here, or has just been ended.
        """
        are_gone = [self._forget(ref) for ref in self.refs() if ref.labels == labels]
        return all(are_gone)

    def _forget(self, ref: FunctionRef) -> bool:
        launchers = [one for one in self.launchers.values() if one.function.ref == ref]
        for launcher in launchers:
            self._drain(launcher)
            if not launcher.containers and not launcher.queue.waiters:
                self.launchers.pop(launcher.function.key).close(Draining())
        if launchers:
            return False
        self.functions = {key: function for key, function in self.functions.items() if function.ref != ref}
        self._caps.pop(ref, None)
        self.host.probation.suspects.discard(ref)
        return True

    def suspect(self, function: Function) -> None:
        """Keep all containers of a function on probation: one wrote more than one answer."""
        self.host.probation.suspects.add(function.ref)

    def _sweep(self) -> None:
        now = self.host.clock.monotonic()
        for launcher in [launcher for launcher in self.launchers.values() if launcher.is_forgettable(now)]:
            self._drain(launcher)
            self.launchers.pop(launcher.function.key).close(Draining())
        self.functions = {key: launcher.function for key, launcher in self.launchers.items()}
        used = {function.ref for function in self.functions.values()}
        self._caps = {ref: cap for ref, cap in self._caps.items() if ref in used or cap.is_used or cap.is_defined}
        self._sweep_later()

    def _sweep_later(self) -> None:
        clock = self.host.clock
        self._sweep_timer = clock.call_at(clock.monotonic() + _SWEEP_S, self._sweep)

    # -- containers ------------------------------------------------------------------------------

    def launcher(self, function: Function) -> HotLauncher:
        """Return the launcher of a function's hot containers."""
        launcher = self.launchers.get(function.key)
        if launcher is None:
            launcher = self.launchers[function.key] = HotLauncher(function, self.host, self._spawn, self)
        return launcher

    def new_cold(self, call: ActiveCall) -> tuple[ColdContainer, asyncio.Task[None]]:
        """Make a container for one call. Return it with its task; :meth:`discard_cold` follows."""
        cold = ColdContainer(call, self.host)
        self._cold.add(cold)
        return cold, self._spawn(cold.run())

    def discard_cold(self, cold: ColdContainer) -> None:
        """Forget a container whose call has ended or given up."""
        self._cold.discard(cold)

    def has_async_room(self) -> bool:
        """Return True if another async call may be taken on."""
        return self.resources.async_is_below_mark(self.host.standby.idle_async)

    def drain(self) -> None:
        """Start nothing more: fail all calls that wait, end idle containers now and busy ones after their call."""
        self.minima.stop()
        for timer in (self._sweep_timer, self._late_timer):
            if timer is not None:
                timer.cancel()
        for launcher in self.launchers.values():
            launcher.close(Draining())
        for cold in list(self._cold):
            cold.fail(Draining())
        self.shares.fail_all(Draining())

    def abandon_later(self) -> None:
        """Leave containers that cannot be removed soon to the next start of this node."""
        clock = self.host.clock
        self._abandon_timer = clock.call_at(clock.monotonic() + _ABANDON_S, self._abandon)

    def _abandon(self) -> None:
        if self._living:
            _log.error("containers left behind, the next start removes them", containers=len(self._living))
        for task in self._living:
            task.cancel()

    def _spawn(self, life: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(life)
        self._living.add(task)
        task.add_done_callback(self._living.discard)
        return task

    def _room_changed(self) -> None:
        self.room_changed.set()
        self.minima.look_soon()

    def make_room(self, function: Function) -> None:
        """Let idle containers give way to one of a function that is to be kept ready, unless calls wait for room."""
        spec, resources = function.spec, self.resources
        if resources.waiting or not resources.is_possible(spec.amount, is_sync=spec.is_sync):
            return
        shortage = resources.shortage_of(spec.amount, function.share, is_sync=spec.is_sync, key=function.key)
        for hot in self.host.standby.choose(shortage):
            hot.evict()

    def relieve(self) -> None:
        """Let containers give way to the requests that are next for memory and CPU: idle ones, and those of other apps.

        An app that waits and uses less than its share does not wait until an app above its share has no calls.
        """
        self.room_changed.set()
        standby, now = self.host.standby, self.host.clock.monotonic()
        crowds = self.resources.crowds()
        for crowd in crowds:
            for hot in standby.choose_own(crowd, is_late=now >= crowd.late_at):
                hot.evict()
        shortage = self.resources.shortage()
        standby.is_short = shortage is not None or bool(crowds)
        self._relieve_at(
            min([one.late_at for one in (*crowds, shortage) if one and one.late_at > now], default=math.inf)
        )
        if shortage is None:
            return
        is_late = now >= shortage.late_at
        lack = standby.beyond_idle(shortage, is_late=is_late)
        if lack != NOTHING:
            self._end_busy(shortage, lack)
        for hot in standby.choose(shortage, is_late=is_late):
            hot.evict()

    def _relieve_at(self, when: float) -> None:
        """Look again when a call has waited long enough for containers kept ready to give way."""
        if self._late_timer is not None:
            self._late_timer.cancel()
        self._late_timer = self.host.clock.call_at(when, self.relieve) if when < math.inf else None

    def _end_busy(self, shortage: Shortage, lack: Amount) -> None:
        """Let containers of apps above their share end after their calls, until they return what is lacking.

        None ends if the app that waits would then use more than the one that gives way: they would take turns.
        """
        use, later = self.resources.use, self.resources.use(shortage.share, shortage.first)
        by_share: dict[Share, list[HotContainer]] = {}
        for launcher in self.launchers.values():
            if launcher.function.share is not shortage.share and launcher.counts[ContainerState.BUSY]:
                by_share.setdefault(launcher.function.share, []).extend(launcher.containers)
        for share in sorted(by_share, key=use, reverse=True):
            given = self.host.standby.leaving_of(share)
            for hot in by_share[share]:
                if lack.fits(NOTHING):
                    return
                if hot.state is not ContainerState.BUSY or hot.is_leaving:
                    continue
                gain = hot.returned.to_sync if shortage.is_sync else hot.returned.to_async
                given += hot.function.spec.amount
                if gain == NOTHING or use(share, NOTHING - given) < later:
                    break
                hot.retire("makes room for another app")
                lack -= gain
