"""Measure whether CPU time is left: another container helps only if it can run, and if the node can serve it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hearth.aio.clock import Clock

#: Seconds over which load is measured at least. Shorter: ticks of the kernel, 10 ms, are too coarse. Longer: a burst is
#: noticed later.
_SINCE_S: Final = 0.05
#: Seconds without a break in which time was left before processors count as idle. Under a steady load a twentieth of a
#: second is just above or below the bounds by chance, and each one above started a container per waiting call (ADR 9).
#: This and steadier rates brought starts per 1,000 calls from 24.5 to 3.6 at 512 connections (docs/performance.md).
_CALM_S: Final = 0.25
#: Idle time below which no time is left: this share of all processors, or this much of one (on few). Higher: functions
#: that wait get containers later. Lower: containers start that cannot run (ADR 9).
_IDLE_SHARE: Final = 0.1
_IDLE_OF_ONE: Final = 0.5
#: Share of its time from which on the node's loop has none left: it could not feed more containers (ADR 9).
_LOOP_SHARE: Final = 0.9


def wanted_s(schedstat: Path = Path("/proc/thread-self/schedstat")) -> float:
    """Return the seconds of processor time that this thread has used or waited for; without schedstat only used."""
    try:
        waited_ns = int(schedstat.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        waited_ns = 0
    return time.thread_time() + waited_ns / 1e9


class Processors:
    """The load of all processors, by all programs, over the last twentieth of a second, and that of the node's loop.

    They count as busy at once, and as idle only after a while.

    Args:
        stat: The kernel's account, proc(5). If it cannot be read, they are never busy.
        processors: Their number; 0 for those of the machine.
        loop_s: Returns the processor time that the thread of the loop has wanted; called in that thread.
    """

    def __init__(
        self,
        clock: Clock,
        stat: Path = Path("/proc/stat"),
        processors: int = 0,
        loop_s: Callable[[], float] = wanted_s,
    ) -> None:
        self._clock = clock
        self._stat = stat
        self._idle_share = max(_IDLE_SHARE, _IDLE_OF_ONE / (processors or os.cpu_count() or 1))
        self._read_at = clock.monotonic()
        self._before = self._read()
        self._loop_s = loop_s
        self._loop_before = loop_s()
        self._calm_s = _CALM_S

    def are_busy(self) -> bool:
        """Return True if next to nothing was idle, or the loop had no time left.

        Reads one small file of the kernel, at most twenty times a second.
        """
        now = self._clock.monotonic()
        if (since := now - self._read_at) >= _SINCE_S:
            idle, total = self._read()
            was_idle, was_total = self._before
            wanted = self._loop_s()
            busy = (wanted - self._loop_before) > _LOOP_SHARE * since or (
                total > was_total and (idle - was_idle) < self._idle_share * (total - was_total)
            )
            self._calm_s = 0.0 if busy else self._calm_s + since
            self._read_at, self._before, self._loop_before = now, (idle, total), wanted
        return self._calm_s < _CALM_S

    def _read(self) -> tuple[int, int]:
        try:
            fields = self._stat.read_text().partition("\n")[0].split()[1:]
            spent = [int(field) for field in fields[:8]]  # those behind are counted in the first ones, too
            return spent[3] + spent[4], sum(spent)
        except (OSError, ValueError, IndexError):
            return 0, 0
