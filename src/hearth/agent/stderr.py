"""The stderr of a container, and the call that it belongs to (agent specification 10).

Before a container has served a call it is an opening: a banner, or why the program cannot start. During a call it is
the call's. Between calls it goes to the server's log. Some drivers deliver stderr and the answer on two ways, so that a
line which was written before the answer may come after it. Neither the answer nor the next call waits for it: until the
next call begins, but at most for a moment, what comes is still the ended call's, and its log is stored again with it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Final

from hearth.access.base import EndedCall
from hearth.agent.call import CallLog, LineLog
from hearth.aio.clock import Clock, next_turn
from hearth.drivers.base import ByteReader
from hearth.models.call import Call
from hearth.telemetry.app_syslog import Drain

#: How long after the end of its call a container's stderr may still be the call's, seconds.
WINDOW_S: Final = 1.0
#: What comes within this time of the first late bytes is stored with them, seconds.
_COLLECT_S: Final = 0.05
#: What is kept of the stderr of a container that has not served yet.
_OPENING_BYTES: Final = 16 * 1024
#: Calls after its last line in which a container still counts as one that writes.
_WARY_CALLS: Final = 100
#: Turns of the loop to wait for stderr; a function that writes without a pause is not waited for.
_TURNS: Final = 64


class ContainerStderr:
    """The stderr of one hot container.

    Args:
        reader: The stream; watched from now on.
        between: Where lines go that belong to no call.
        lags: The driver's stderr may come late.
        drain: Gets all of it, too.

    Attributes:
        log: The log of the call that has what comes now; ``None`` between calls. Where stderr lags, the turn of a call
            ends with :meth:`linger`.
        opens: The container has served no call.
        opening: The end of what came before the first call that it has served.
        unseen: Returns whether something waits in the kernel; :meth:`catch_up` waits for it.
        heard_at: Loop time of the last bytes; noted only where stderr lags.
    """

    __slots__ = (
        "_clock",
        "_drain",
        "_late",
        "_late_until",
        "_timer",
        "_wary",
        "between",
        "heard_at",
        "lags",
        "log",
        "opening",
        "opens",
        "unseen",
    )

    def __init__(
        self, reader: ByteReader, clock: Clock, between: LineLog, *, lags: bool, drain: Drain | None = None
    ) -> None:
        self._clock = clock
        self._drain = drain
        self.between = between
        self.lags = lags
        self.log: CallLog | None = None
        self.unseen = reader.unseen
        self._late: CallLog | None = None
        self._late_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wary = 1 if lags else 0  # nobody knows whether the first call writes
        self.opens = True
        self.opening = b""
        self.heard_at = 0.0
        reader.watch(self._take)

    def __repr__(self) -> str:
        return f"<ContainerStderr of a call={self.log is not None} of an ended call={self._late is not None}>"

    def end_opening(self) -> None:
        """Note that the container has served a call, so it has started well."""
        self.opens = False
        self.opening = b""

    def linger(self) -> None:
        """End the turn of the call, if any, where stderr lags: what comes in the next moment is still the call's."""
        if self.log is None:
            return
        self._late, self.log = self.log, None
        self._late_until = self._clock.monotonic() + WINDOW_S
        if self._timer is None:
            self._timer = self._clock.call_at(self._late_until, self._look_at_window)

    def expects_more(self) -> bool:
        """Return whether lines of the call that has just ended may still come. Ask once after each call."""
        if not self._wary:
            return False
        self._wary -= 1
        return True

    def has_unseen(self) -> bool:
        """Return whether lines that may come late wait in the kernel."""
        return self.lags and bool(self.unseen())

    async def catch_up(self) -> None:
        """Let the loop deliver what has come by now."""
        await catch_up(self.unseen)

    def _take(self, data: bytes) -> None:
        if not data:
            self._end()
            return
        if self.lags:
            self._wary = _WARY_CALLS
            self.heard_at = self._clock.monotonic()
            if self.heard_at > self._late_until:
                self._late = None
        log = self.log or self._late
        if self._drain is not None:
            self._drain.write(data, "" if log is None else log.call_id)
        if log is not None:
            log.write(data)
            return
        self.between.write(data)
        if self.opens:
            self._note_opening(data)

    def _note_opening(self, data: bytes) -> None:
        self.opening = (self.opening + data)[-_OPENING_BYTES:]

    def _look_at_window(self) -> None:
        """Let go of the last call, or look again: one timer per container, not per call."""
        self._timer = None
        if self._clock.monotonic() < self._late_until:
            self._timer = self._clock.call_at(self._late_until, self._look_at_window)
        else:
            self._late = None  # a log may be large

    def _end(self) -> None:
        """Let go of the calls: nothing more will come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.log = self._late = None


async def catch_up(unseen: Callable[[], object]) -> None:
    """Let the loop deliver what has come of a stream that is watched."""
    for _ in range(_TURNS):
        if not unseen():
            return
        await next_turn()


class LateLogs:
    """Stores the logs of ended calls again that have grown since.

    Args:
        store: Stores an ended call with its log.
        lags: The driver's stderr may come late. If not, a log is complete when its call ends.
    """

    def __init__(self, store: Callable[[EndedCall], object], clock: Clock, *, lags: bool) -> None:
        self._store = store
        self._clock = clock
        self.lags = lags
        self._collecting: dict[str, tuple[asyncio.TimerHandle, Call, CallLog]] = {}

    def __repr__(self) -> str:
        return f"<LateLogs collecting={len(self._collecting)}>"

    def take(self, record: Call, log: CallLog) -> bytes:
        """Return the log of a call that ends; store it again if more comes."""
        return log.take(functools.partial(self._collect, record) if self.lags else None)

    def close(self) -> None:
        """Store at once what is being collected."""
        for call_id in list(self._collecting):
            self._store_again(call_id)

    def _collect(self, record: Call, log: CallLog) -> None:
        timer = self._clock.call_at(self._clock.monotonic() + _COLLECT_S, self._store_again, record.id)
        self._collecting[record.id] = (timer, record, log)

    def _store_again(self, call_id: str) -> None:
        timer, record, log = self._collecting.pop(call_id)
        timer.cancel()
        self._store(EndedCall(record, self.take(record, log)))
