"""Runs accepted async calls (agent specification 12; nodes specification 4).

A message stays in the queue, leased to this node, until the final record of its call is stored. The lease is renewed
while the call waits or runs here. If this node dies, the lease expires and whoever gets the message next finds from the
call's record how far it came: one that was not started is run, one that was running ends as ``error``, for it may have
run in part; one that had ended is forgotten.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final

import msgspec

from hearth.access.base import AlreadyStarted, DataAccess
from hearth.agent.agent import Agent
from hearth.agent.call import NotStarted
from hearth.clock import Clock, pause
from hearth.models.call import ERROR, RUNNING, Call
from hearth.models.errors import ApiError, HearthError, InternalError, ServerBusy
from hearth.queues.base import Reserved
from hearth.telemetry.logs import get_logger

#: Calls that may be waiting here for a container. What waits in the queue instead can be taken by any node.
_MAX_WAITING: Final = 32
_TRY_AGAIN_S: Final = 1.0
_MAX_DELAY_S: Final = 60.0

_log = get_logger(__name__)


class Interrupted(InternalError):
    """The node that ran the call died."""

    def __init__(self) -> None:
        super().__init__("the server stopped while the call was running; it may have run in part")


@dataclasses.dataclass(slots=True, eq=False)
class _Run:
    lease: str
    waiting: bool = True


class Consumer:
    """Takes calls from the queue while there is room for async work. An async context manager, within the agent's.

    Leaving it waits for the calls that run; what has not been started is given back.
    """

    def __init__(self, agent: Agent, access: DataAccess, clock: Clock, *, max_waiting: int = _MAX_WAITING) -> None:
        self._agent = agent
        self._access = access
        self._clock = clock
        self._max_waiting = max_waiting
        self._runs: dict[str, _Run] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()

    def __repr__(self) -> str:
        return f"<Consumer calls={len(self._runs)} waiting={self._waiting()}>"

    async def __aenter__(self) -> Consumer:
        await self._group.__aenter__()
        self._agent.on_room = self._changed.set
        self._loops = [self._group.create_task(loop) for loop in (self._consume(), self._renew())]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.stop()
        await self._group.__aexit__(None, None, None)

    def stop(self) -> None:
        """Take no further call. Idempotent; the agent is to be drained next, so that waiting calls give up."""
        self._stopping = True
        self._loops[0].cancel()
        if not self._runs:
            self._loops[1].cancel()

    # -- taking ---------------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        while True:
            await self._room()
            try:
                taken = await self._access.dequeue(self._max_waiting - self._waiting())
            except HearthError as exc:
                _log.error("error fetching queued calls", error=str(exc))
                await pause(self._clock, _TRY_AGAIN_S)
                continue
            for reserved in taken:
                self._take(reserved)

    async def _room(self) -> None:
        while self._waiting() >= self._max_waiting or not self._agent.has_async_room():
            self._changed.clear()
            await self._changed.wait()

    def _waiting(self) -> int:
        return sum(run.waiting for run in self._runs.values())

    def _take(self, reserved: Reserved) -> None:
        if (run := self._runs.get(reserved.call.id)) is not None:
            run.lease = reserved.lease  # its renewal came too late, and the message came back to us
            return
        run = self._runs[reserved.call.id] = _Run(reserved.lease)
        self._group.create_task(self._run(reserved, run))

    async def _renew(self) -> None:
        while True:
            await pause(self._clock, self._access.visibility_s / 3)
            if leases := [run.lease for run in self._runs.values()]:
                try:
                    await self._access.renew(leases)
                except HearthError as exc:
                    _log.error("leases of running calls not renewed", calls=len(leases), error=str(exc))

    # -- one call -------------------------------------------------------------------------------------------------

    async def _run(self, reserved: Reserved, run: _Run) -> None:
        call = reserved.call
        try:
            if await self._ended(call, run):
                await self._access.settle(run.lease)
            else:
                await self._access.release(run.lease, self._delay_s(reserved))
        except HearthError as exc:  # the lease expires, and the call's record tells what is to be done
            _log.error("error running async call", call_id=call.id, error=str(exc))
        finally:
            del self._runs[call.id]
            self._changed.set()
            if self._stopping and not self._runs:
                self._loops[1].cancel()

    async def _ended(self, call: Call, run: _Run) -> bool:
        """Run it; whether it is over and recorded, here or by somebody else."""
        try:
            function = self._agent.accepted_function(call)
            self._agent.check_capacity(function)
        except ApiError as exc:  # no node of this size or release will ever run it
            _log.error("error getting async call", call_id=call.id, error=str(exc))
            return await self._agent.record_failure(call, exc)
        active = self._agent.accepted_call(function, call)
        active.take_over = lambda: self._take_over(call, run)
        try:
            await self._agent.submit(active)
        except ServerBusy:
            return active.stored
        except NotStarted as exc:
            if not isinstance(exc.__cause__, AlreadyStarted):
                return False
            await self._settle_accounts(call, exc.__cause__)
            return True
        except HearthError as exc:
            _log.info("error running async call", call_id=call.id, error=str(exc))
        if not active.stored:
            raise InternalError("its end was not recorded")
        return True

    async def _take_over(self, call: Call, run: _Run) -> None:
        running = msgspec.structs.replace(call, started_at=self._clock.now(), status=RUNNING)
        try:
            await self._access.start(running)
        except HearthError as exc:
            raise NotStarted(str(exc)) from exc
        run.waiting = False
        self._changed.set()

    async def _settle_accounts(self, call: Call, found: AlreadyStarted) -> None:
        """Somebody started this call, and the message came back: nobody runs it any more."""
        _log.warning("accepted call had been started before", call_id=call.id, status=found.status)
        if found.status == RUNNING:
            call.status, call.error = ERROR, str(Interrupted())
            call.completed_at = self._clock.now()
            await self._access.interrupted(call)

    def _delay_s(self, reserved: Reserved) -> float:
        """A call that found no room waits longer each time; one that shutdown gives back does not."""
        return 0.0 if self._stopping else min(_MAX_DELAY_S, 2.0 ** (reserved.deliveries - 1))
