"""Consumers of async calls in a world without containers: what runs is a list, what is stored a dictionary."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from hearth.access.base import AlreadyStarted, EndedCall
from hearth.access.local import LocalAcceptedCalls, LocalCallRecords
from hearth.agent.agent import CallEnd, RunsAgain, TakeOver
from hearth.agent.call import NotStarted
from hearth.agent.outcomes import fail
from hearth.agent.shares import Share
from hearth.async_calls.consumer import Consumer, SendRecord
from hearth.models.call import CANCELLED, FINAL, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.dead_letter import DeadLetter
from hearth.models.errors import CallEnded, CallNotFound, DeadLetterNotFound, HearthError, ServerBusy, StoreUnavailable
from hearth.models.function import Amount
from hearth.queues.base import Queue, Reserved
from hearth.server.cancels import Cancels
from hearth.telemetry.node import Telemetry
from tests.support.clock import FakeClock


class Faults:
    """Steps that fail, by name: the next time, or until they are mended.

    Attributes:
        look: Called at every step, before it.
        garbled: Messages, by their calls' ids, of which the queue says that nobody can run them, and why.
    """

    def __init__(self) -> None:
        self.once: dict[str, Exception] = {}
        self.broken: dict[str, Exception] = {}
        self.holds: dict[str, asyncio.Event] = {}
        self.arrived: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.look: Callable[[], None] = lambda: None
        self.garbled: dict[str, str] = {}

    def pass_by(self, step: str) -> None:
        """Fail here if ordered."""
        self.look()
        self.reached[step] += 1
        if (error := self.once.pop(step, None) or self.broken.get(step)) is not None:
            raise error

    async def pass_through(self, step: str) -> None:
        """Wait here if ordered, then fail if ordered."""
        self.arrived[step] += 1
        if (hold := self.holds.get(step)) is not None:
            await hold.wait()
        self.pass_by(step)


class Store:
    """The records of calls; ``history`` has every status that each of them ever had."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.calls: dict[str, Call] = {}
        self.history: dict[str, list[str]] = {}
        self.dead: dict[str, DeadLetter] = {}
        self.payloads: dict[str, bytes] = {}

    def _put(self, call: Call) -> None:
        self.calls[call.id] = msgspec.structs.replace(call)
        past = self.history.setdefault(call.id, [])
        if past[-1:] != [call.status]:
            past.append(call.status)

    async def add_calls(self, accepted: Sequence[Call]) -> None:
        await self.faults.pass_through("add_calls")
        for call in accepted:
            if call.id not in self.calls:
                self._put(call)

    async def start_calls(self, starting: Sequence[Call]) -> list[str]:
        await self.faults.pass_through("start_calls")
        found = ["" if self._may_start(call) else self.status(call.id) for call in starting]
        for call, status in zip(starting, found, strict=True):
            if not status:
                self._put(call)
        self.faults.pass_by("start_calls stored")
        return found

    async def put_calls(self, ended: Sequence[tuple[Call, bytes | None]]) -> list[bool]:
        await self.faults.pass_through("put_calls")
        first = [self.status(call.id) not in FINAL and self._attempt(call.id) <= call.attempt for call, _ in ended]
        for call, ours in zip([call for call, _ in ended], first, strict=True):
            if ours:
                self._put(call)
            if ours and call.dead:
                self.dead[call.id] = DeadLetter(msgspec.structs.replace(call), len(call.payload))
                self.payloads[call.id] = call.payload
        both = [self.status(call.id) == call.status == CANCELLED for call, _ in ended]
        return [ours or cancelled for ours, cancelled in zip(first, both, strict=True)]

    async def cancel_call(self, app_name: str, call_id: str, end: Callable[[Call], Call]) -> Call:
        await self.faults.pass_through("cancel_call")
        stored = await self.get_call(app_name, call_id)
        if stored.status in FINAL:
            raise CallEnded(stored.status)
        ended = end(stored)
        self._put(ended)
        return ended

    async def cancelled(self, call_ids: Sequence[str]) -> set[str]:
        await self.faults.pass_through("cancelled")
        return {call_id for call_id in call_ids if self.status(call_id) == CANCELLED}

    async def get_dead_letter(self, app_name: str, call_id: str) -> tuple[DeadLetter, bytes]:
        await self.faults.pass_through("get_dead_letter")
        if call_id not in self.dead:
            raise DeadLetterNotFound
        return self.dead[call_id], self.payloads[call_id]

    async def claim_dead_letter(self, app_name: str, call_id: str, redriven_as: str) -> str:
        await self.faults.pass_through("claim_dead_letter")
        letter, _ = await self.get_dead_letter(app_name, call_id)
        if not letter.redriven_as:
            self.dead[call_id] = msgspec.structs.replace(letter, redriven_as=redriven_as)
        return self.dead[call_id].redriven_as

    async def remove_dead_letter(self, app_name: str, call_id: str) -> bool:
        await self.faults.pass_through("remove_dead_letter")
        return self.dead.pop(call_id, None) is not None

    async def retry_calls(self, again: Sequence[tuple[Call, bytes | None]]) -> None:
        await self.faults.pass_through("retry_calls")
        for call, _ in again:
            if self.status(call.id) not in FINAL and self._attempt(call.id) < call.attempt:
                self._put(call)

    def _may_start(self, call: Call) -> bool:
        status = self.status(call.id)
        if status == RUNNING:
            return self._attempt(call.id) < call.attempt
        return status in ("", QUEUED) and self._attempt(call.id) <= call.attempt

    def _attempt(self, call_id: str) -> int:
        return self.calls[call_id].attempt if call_id in self.calls else 0

    async def get_call(self, app_name: str, call_id: str) -> Call:
        if call_id not in self.calls:
            raise CallNotFound
        return self.calls[call_id]

    def status(self, call_id: str) -> str:
        return self.calls[call_id].status if call_id in self.calls else ""


class FaultyRecords(LocalCallRecords):
    """The true records, whose starts can be made to fail."""

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store)  # type: ignore[arg-type]
        self._faults = faults

    async def start(self, call: Call) -> None:
        await self._faults.pass_through("start")
        await super().start(call)


class FaultyAcceptedCalls(LocalAcceptedCalls):
    """The true accepted calls, whose queue can be made to fail."""

    def __init__(self, store: Store, queue: Queue, clock: FakeClock, faults: Faults) -> None:
        super().__init__(queue, store, clock)  # type: ignore[arg-type]
        self._faults = faults

    async def dequeue(self, limit: int, without: frozenset[str] = frozenset()) -> list[Reserved]:
        await self._faults.pass_through("dequeue")
        garbled = self._faults.garbled
        taken = await super().dequeue(limit, without)
        return [dataclasses.replace(one, fault=garbled.get(one.call.id, one.fault)) for one in taken]

    async def renew(self, leases: list[str]) -> list[bool]:
        await self._faults.pass_through("renew")
        return await super().renew(leases)

    async def acknowledge(self, leases: list[str]) -> list[bool]:
        await self._faults.pass_through("acknowledge")
        found = await super().acknowledge(leases)
        self._faults.reached["acknowledged"] += len(leases)
        return found

    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        await self._faults.pass_through("release")
        await super().release(lease, delay_s)

    async def retry(self, lease: str, again: EndedCall, delay_s: float) -> bool:
        await self._faults.pass_through("retry")
        is_ours = await super().retry(lease, again, delay_s)
        self._faults.pass_by("retry answered")
        return is_ours


@dataclasses.dataclass
class Active:
    """A call that runs until its function ends, or it is told to end."""

    record: Call
    why: Exception | None = None
    told: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def end_early(self, why: Exception) -> None:
        self.why = why
        self.told.set()


class FunctionOf(str):
    """The function of the call with this id."""

    amount = Amount(128, 0)


class StubAgent:
    """Runs a call by putting it on ``executed``; it ends when ``finish`` is set."""

    def __init__(self, records: LocalCallRecords, clock: FakeClock, faults: Faults, executed: list[str]) -> None:
        self.telemetry = Telemetry()
        self.consumer: Any = None
        self.pool = self
        self.share = Share("a")
        self.room_changed = asyncio.Event()
        self.slots, self.finish = asyncio.Event(), asyncio.Event()
        self.slots.set()
        self.finish.set()
        self.room = True
        self.too_large: set[str] = set()
        self.waiting: set[str] = set()
        self.running: set[str] = set()
        self.failing: dict[str, Container[int]] = {}
        self.attempts: list[tuple[str, int]] = []
        self._records, self._clock, self._faults, self._executed = records, clock, faults, executed
        self._draining = asyncio.Event()

    def drain(self) -> None:
        self._draining.set()
        self.share.fail_all(ServerBusy())

    def has_async_room(self) -> bool:
        self._faults.pass_by("has_async_room")
        return self.room

    async def function_of(self, call: Call) -> FunctionOf:
        self._faults.pass_by("function_of")
        return FunctionOf(call.id)

    def function(self, spec: FunctionOf) -> Any:
        return SimpleNamespace(share=self.share)

    def check_capacity(self, function: str) -> None:
        self._faults.pass_by("check_capacity")
        if function in self.too_large:
            raise ServerBusy(retry_after=False)

    def accepted_call(self, function: str, call: Call) -> Active:
        self._faults.pass_by("accepted_call")
        return Active(call)

    async def run(self, active: Active, take_over: TakeOver, runs_again: RunsAgain | None = None) -> CallEnd:
        call = active.record
        self._faults.pass_by("submit")
        try:
            await self._slot(call.id)
            if active.why is not None:
                raise NotStarted("cancelled") from AlreadyStarted(CANCELLED)
            await take_over()
        except (ServerBusy, NotStarted) as exc:
            return CallEnd(exc)
        self._executed.append(call.id)
        self.attempts.append((call.id, call.attempt))
        self.running.add(call.id)
        await self._end(active)
        self.running.discard(call.id)
        call.status, call.completed_at = SUCCESS, self._clock.now()
        ended = EndedCall(call, b"")
        failure = active.why or (HearthError("it fails") if call.attempt in self.failing.get(call.id, ()) else None)
        if failure is not None:
            fail(call, b"", failure)
        if runs_again is not None and runs_again(failure):
            return CallEnd(failure, ended)
        return CallEnd(None, ended, await self._record(ended))

    async def record_failure(self, call: Call, error: Exception) -> bool:
        fail(call, b"", error)
        return await self._record(EndedCall(call, b""))

    async def _end(self, active: Active) -> None:
        """Wait until the function ends, or is ended."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self.finish, active.told)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _record(self, ended: EndedCall) -> bool:
        try:
            await self._records.finish_many([ended])
        except HearthError:
            return False
        return True

    async def _slot(self, call_id: str) -> None:
        self.waiting.add(call_id)
        slot, drain = (asyncio.ensure_future(event.wait()) for event in (self.slots, self._draining))
        try:
            await asyncio.wait([slot, drain], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting.discard(call_id)
            slot.cancel()
            drain.cancel()
        if self._draining.is_set():
            raise ServerBusy


class AsyncWorld:
    """One queue and one store, for any number of nodes.

    Attributes:
        patience_s: How long what is waited for may take, of true time.
        executed: The ids of calls in the order in which they were executed, by whatever node.
    """

    def __init__(self, queue: Queue, clock: FakeClock) -> None:
        self.clock = clock
        self.faults = Faults()
        self.store = Store(self.faults)
        self.patience_s = 60.0
        self.executed: list[str] = []
        self._open(queue)

    def follow(self, queue: Queue) -> None:
        """Go on with another queue, and the same records: after a crash."""
        self._open(queue)

    def _open(self, queue: Queue) -> None:
        self.queue = queue
        self.records = FaultyRecords(self.store, self.faults)
        self.accepted = FaultyAcceptedCalls(self.store, queue, self.clock, self.faults)
        self.cancels = Cancels(self.store, self.clock, 60, self.accepted)  # type: ignore[arg-type]

    async def cancel(self, call_id: str) -> bool:
        """As the API does; false if the call has ended."""
        try:
            await self.cancels.cancel(lambda: self.store.get_call("a", call_id))
        except CallEnded:
            return False
        return True

    async def close(self) -> None:
        """Wait until all is written."""
        await self.records.close()
        await self.accepted.close()

    async def accept(self, *call_ids: str) -> None:
        """As the invocation front does."""
        for call_id in call_ids:
            await self.accepted.enqueue(call(call_id))

    @contextlib.asynccontextmanager
    async def node(
        self,
        *,
        max_waiting: int = 8,
        faults: Faults | None = None,
        quiet_s: float = 0.0,
        max_misfits: int = 30,
        send: SendRecord | None = None,
    ) -> AsyncIterator[StubAgent]:
        """A node that consumes; leaving it shuts it down. ``send`` sends records to destinations."""
        faults = faults or self.faults
        records = FaultyRecords(self.store, faults)
        accepted = FaultyAcceptedCalls(self.store, self.queue, self.clock, faults)
        agent = StubAgent(records, self.clock, faults, self.executed)
        limits = {"max_waiting": max_waiting, "acknowledge_after_s": 0, "quiet_s": quiet_s, "max_misfits": max_misfits}
        given: dict[str, Any] = {**limits, "send": send}
        consumer = Consumer(agent, records, accepted, self.clock, agent.function_of, **given)  # type: ignore[arg-type]
        agent.consumer = consumer
        async with consumer:
            try:
                yield agent
            except BaseException:
                agent.finish.set()  # a test that fails does not wait for its calls
                raise
            finally:
                consumer.stop()
                agent.drain()
        await records.close()
        await accepted.close()

    async def until(self, condition: Callable[[], bool], *, step_s: float = 0.0) -> None:
        """Let things happen, and ``step_s`` pass at each look, until it is so."""
        async with asyncio.timeout(self.patience_s):
            while not condition():
                await asyncio.sleep(0.002)
                self.clock.advance(step_s)

    async def ended(self, *call_ids: str, step_s: float = 0.0) -> None:
        """Until these calls have ended and nothing of them is left in the queue."""
        await self.until(lambda: all(self.store.status(one) in FINAL for one in call_ids), step_s=step_s)

    async def is_empty(self) -> bool:
        """Whether no message is left, be it hidden."""
        self.clock.advance(self.queue.visibility_s * 100)
        return await self.queue.reserve(100) == []


def call(call_id: str) -> Call:
    """An accepted call."""
    return Call(id=call_id, app_name="a", path="/p", status=QUEUED, type="async")


def away() -> StoreUnavailable:
    """What a store that is away says."""
    return StoreUnavailable("away")
