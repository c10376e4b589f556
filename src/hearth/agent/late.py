"""What reaches a call's log after its end (agent specification 10).

Some drivers deliver stderr and the answer on two ways, so that a line which was written before the answer may come
after it. Neither the answer nor the next call waits for it: until the container's next call begins, what comes is still
the ended call's, and its log is stored again with it.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import Final

from hearth.access.base import EndedCall
from hearth.agent.log import CallLog
from hearth.agent.recorder import Recorder
from hearth.clock import Clock
from hearth.models.call import Call

#: How long after the end of its call a container's stderr may still be the call's, seconds.
WINDOW_S: Final = 1.0
#: What comes within this time of the first late bytes is stored with them, seconds.
_COLLECT_S: Final = 0.05


class LateLogs:
    """Stores logs again that were not complete.

    Args:
        lags: The driver's stderr may come late. If not, a log is complete when its call ends.
    """

    def __init__(self, recorder: Recorder, clock: Clock, *, lags: bool) -> None:
        self._recorder = recorder
        self._clock = clock
        self._lags = lags
        self._collecting: dict[str, tuple[asyncio.TimerHandle, Call, CallLog]] = {}
        self._kept: deque[tuple[float, CallLog]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LateLogs collecting={len(self._collecting)}>"

    def take(self, record: Call, log: CallLog) -> bytes:
        """The log of a call that ends."""
        if not self._lags:
            return log.take()
        self._kept.append((self._clock.monotonic() + WINDOW_S, log))
        if self._timer is None:
            self._timer = self._clock.call_at(self._kept[0][0], self._let_go)
        return log.take(functools.partial(self._collect, record, log))

    def close(self) -> None:
        """Store at once what is being collected."""
        for call_id in list(self._collecting):
            self._store(call_id)
        if self._timer is not None:
            self._timer.cancel()

    def _let_go(self) -> None:
        """Forget the logs whose time is over: one timer for all of them."""
        now, self._timer = self._clock.monotonic(), None
        while self._kept and self._kept[0][0] <= now:
            self._kept.popleft()[1].forget()
        if self._kept:
            self._timer = self._clock.call_at(self._kept[0][0], self._let_go)

    def _collect(self, record: Call, log: CallLog) -> None:
        timer = self._clock.call_at(self._clock.monotonic() + _COLLECT_S, self._store, record.id)
        self._collecting[record.id] = (timer, record, log)

    def _store(self, call_id: str) -> None:
        timer, record, log = self._collecting.pop(call_id)
        timer.cancel()
        self._recorder.add(EndedCall(record, self.take(record, log)))
