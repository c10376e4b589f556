"""Stores the records and logs of ended calls: many calls, one commit (nodes specification 5).

The calls that end during one write are written together by the next one::

    IDLE -> DUE -> WRITING -> IDLE        DUE: the write begins in the next turn of the loop; at once for a lone call
            DUE -> HELD -> WRITING        HELD: many calls are about to end, so the write waits for some of them
                   WRITING -> HELD, WRITING

A write costs several times as much as one more record in it. A batch is handed over to the store, which calls back: no
task waits for it. Only what fails, or what the store cannot take in this way, becomes a task.

A store that is gone for a while costs memory, which is bounded, and no call its answer: until the store is back, calls
are answered before their records are stored. What is lost in the end is counted, and logged.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from hearth.access.base import CallRecords, EndedCall, EndRefused
from hearth.aio.background import Background
from hearth.aio.clock import Clock, SystemClock, pause
from hearth.aio.group_commit import write_apart
from hearth.models.errors import StoreUnavailable
from hearth.telemetry.logs import get_logger, log_levels
from hearth.telemetry.metrics import Metrics

#: What may wait for the database, in calls and in bytes of their logs; beyond that, records are dropped and counted
#: rather than memory filled.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
_MAX_BATCH: Final = 500
#: Seconds after the beginning of a write for which the next one may be held, for each so many calls without an answer.
#: A longer hold makes fewer commits. Over 8 and 32 connections it costs more than it saves, because clients wait. Over
#: 128, where they wait anyway, 3 ms saves a fifth of the processor time of a call.
_HOLD_S: Final = 0.001
_CROWD: Final = 40
_MOST_HOLDS: Final = 3
#: A write is held only while fewer than this part of the calls that have no answer yet wait for it.
_ENOUGH: Final = 4
_FIRST_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 2.0
_ANSWERED: Final = "call answered before its record was stored"
_FAILED: Final = "error finalizing call on datastore/mq"

_log = get_logger(__name__)


class _State(enum.Enum):
    IDLE = "idle"
    DUE = "due"
    HELD = "held"
    WRITING = "writing"


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    """An ended call, and who waits for its record.

    A struct, because its constructor takes no call of Python's.

    Attributes:
        stored: The result of :meth:`Recorder.record`.
        since: The time from which an answer waits for it; infinite if none does.
    """

    ended: EndedCall
    stored: asyncio.Future[bool]
    since: float


class Recorder:
    """Group commit of ended calls.

    Args:
        records: Stores them.
        metrics: Count the records that wait and those that are lost.
        limit_s: How long a call waits for its record to be stored before it is answered all the same.
        retry_s: Seconds for which a batch is tried again while the store is away. Storing a batch twice is the same as
            storing it once.
        clock: Times the waits.
        running: Returns the number of calls without an answer; a batch may wait a moment for theirs.
    """

    def __init__(
        self,
        records: CallRecords,
        metrics: Metrics,
        *,
        limit_s: float = 10.0,
        retry_s: float = 60.0,
        clock: Clock | None = None,
        running: Callable[[], int] = lambda: 0,
    ) -> None:
        self._records = records
        self._submit = records.submit
        self._gauge = metrics.gauge("hearth_records_waiting").series()
        self._lost = metrics.counter("hearth_records_lost")
        self._limit_s = limit_s
        self._retry_s = retry_s
        self._clock = clock or SystemClock()
        self._running = running
        self._state = _State.IDLE
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._batch: list[_Waiting] = []
        self._enough = 0.0
        self._hold_until = -math.inf
        self._hold: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._failing = False
        self._background = Background()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed: asyncio.Future[None] | None = None
        self.dropped = 0

    def __repr__(self) -> str:
        waiting = f"waiting={len(self._waiting)} bytes={self._waiting_bytes}"
        return f"<Recorder {self._state.value} {waiting} dropped={self.dropped}>"

    def record(self, ended: EndedCall, *, is_awaited: bool = True) -> asyncio.Future[bool]:
        """Store an ended call soon; the result is whether it was stored: the response ends after the commit.

        A wait that is given up does not keep it from being stored.

        Args:
            ended: The call.
            is_awaited: An answer waits for the result: it is false after a limit, or at once while the store is known
                to be gone, although the record may still be stored.
        """
        loop = self._loop or self._find_loop()
        stored: asyncio.Future[bool] = loop.create_future()
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
            self._lose([ended], "too many calls wait")
            stored.set_result(False)
            return stored
        self._waiting_bytes += len(ended.log)
        self._gauge.value += 1
        since = math.inf
        if is_awaited:
            since = self._clock.monotonic()
            if self._limit is None:
                self._limit = self._clock.call_at(since + self._limit_s, self._end_waits)
        waiting = _Waiting(ended, stored, since)
        self._waiting.append(waiting)
        if self._failing and is_awaited:
            _answer(waiting)
        if self._state is _State.IDLE:
            if self._running() == 1:  # nobody else is about to end
                self._write()
            else:
                self._state = _State.DUE
                loop.call_soon(self._write)
        elif self._state is _State.HELD and len(self._waiting) >= self._enough:
            self._write()
        return stored

    async def close(self) -> None:
        """Wait until all is stored; what the store does not accept now is lost."""
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        if self._state is _State.HELD:
            self._write()
        if self._state is not _State.IDLE:
            await self._closed
        await self._background.join()
        if self._limit is not None:
            self._limit.cancel()

    def _find_loop(self) -> asyncio.AbstractEventLoop:
        """Remember the running loop: looking it up takes a system call, which every call would pay for."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _write(self) -> None:
        """Write what waits, or hold it once for the calls that are about to end."""
        now = self._clock.monotonic()
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        elif now < self._hold_until and self._closed is None:
            self._enough = min(self._running() / _ENOUGH, _MAX_BATCH)
            if len(self._waiting) < self._enough:
                self._state = _State.HELD
                self._hold = self._clock.call_at(self._hold_until, self._write)
                return
        self._state = _State.WRITING
        self._hold_until = now + _HOLD_S * min(max(self._running() / _CROWD, 1), _MOST_HOLDS)
        self._batch = self._waiting[:_MAX_BATCH]
        del self._waiting[:_MAX_BATCH]
        try:
            is_handed_over = self._submit is not None and self._submit(
                [one.ended for one in self._batch], self._written
            )
        except Exception:  # storing them one by one shows whose record it is
            is_handed_over = False
        if not is_handed_over:
            self._background.start(self._write_apart())

    def _written(self, error: Exception | None) -> None:
        """Let the calls of a batch end, and write the next one; if it failed, find out what can be stored."""
        batch = self._batch
        if error is not None:
            if isinstance(error, StoreUnavailable):
                self._away()
            self._background.start(self._write_apart())
            return
        for one in batch:
            self._waiting_bytes -= len(one.ended.log)
            if not one.stored.done():
                one.stored.set_result(True)
        self._gauge.value -= len(batch)
        if batch:
            self._failing = False
        if log_levels.debug:
            for one in batch:
                _log.debug("call recorded", call_id=one.ended.call.id, status=one.ended.call.status)
        self._batch = []
        if self._waiting:
            self._write()
            return
        self._state = _State.IDLE
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    # -- what fails, and what the store takes no other way ----------------------------------------------------------

    async def _write_apart(self) -> None:
        """Store the batch; if the store refuses that, in smaller and smaller parts, so that only bad calls are lost."""
        await write_apart(self._store, list(self._batch), refused=self._refused, is_refusal=lambda _: True)
        self._written(None)

    async def _store(self, some: list[_Waiting]) -> Sequence[None]:
        """Store some calls; try again while the store is away, up to a limit."""
        give_up, delay_s = self._clock.monotonic() + self._retry_s, _FIRST_RETRY_S
        while True:
            try:
                await self._records.finish_many([one.ended for one in some])
            except StoreUnavailable as exc:
                self._away()
                if self._closed is not None or self._clock.monotonic() + delay_s > give_up:
                    self._give_up(some, exc)
                    break
                _log.warning("records not stored yet, trying again", calls=len(some), error=str(exc))
            else:
                break
            await pause(self._clock, delay_s)
            delay_s = min(2 * delay_s, _MAX_RETRY_S)
        return [None] * len(some)

    def _refused(self, one: _Waiting, exc: Exception) -> None:
        """Lose one call, whatever the error is: the others are still stored."""
        self._give_up([one], exc)

    def _give_up(self, some: list[_Waiting], cause: Exception) -> None:
        """Lose some calls of the batch."""
        for one in some:
            self._batch.remove(one)
            self._waiting_bytes -= len(one.ended.log)
            if not one.stored.done():
                one.stored.set_result(False)
        self._gauge.value -= len(some)
        self._lose([one.ended for one in some], str(cause), cause)

    def _lose(self, ended: Sequence[EndedCall], reason: str, cause: Exception | None = None) -> None:
        self.dropped += len(ended)
        if not isinstance(cause, EndRefused):
            self._lost.add(len(ended))
        _log.error(_FAILED, calls=len(ended), call_id=ended[0].call.id, error=reason, exc_info=cause)

    # -- answers that do not wait any longer ------------------------------------------------------------------------

    def _away(self) -> None:
        """Let all calls be answered: the store is gone."""
        self._failing = True
        for one in (*self._batch, *self._waiting):
            if one.since < math.inf:
                _answer(one)

    def _end_waits(self) -> None:
        """Let the calls be answered that have waited for as long as they may."""
        self._limit = None
        limit = self._clock.monotonic() - self._limit_s
        for one in (*self._batch, *self._waiting):
            if one.since > limit and one.since < math.inf and not one.stored.done():
                self._limit = self._clock.call_at(one.since + self._limit_s, self._end_waits)
                return
            if one.since <= limit:
                _answer(one)


def _answer(one: _Waiting) -> None:
    """Let a call be answered; its record is still stored if that is possible."""
    if not one.stored.done():
        _log.error(_ANSWERED, call_id=one.ended.call.id)
        one.stored.set_result(False)
