"""Whether there is processor time left: another container is of use only if it can run, and if the node can feed it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hearth.clock import Clock

_SINCE_S: Final = 0.05
#: For so long they have to have had time left, without a break, before it is believed. Under a steady load whether a
#: twentieth of a second was just above or just below the bounds is chance.
_CALM_S: Final = 0.25
#: Idle time below which there is none: this share of all, or on few processors so much of one.
_IDLE_SHARE: Final = 0.1
_IDLE_OF_ONE: Final = 0.5
#: The share of its time from which on the node's loop has none left.
_LOOP_SHARE: Final = 0.9


def wanted_s(schedstat: Path = Path("/proc/thread-self/schedstat")) -> float:
    """Processor time that this thread has used, or stood in line for, seconds; where nobody counts that, only used."""
    try:
        waited_ns = int(schedstat.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        waited_ns = 0
    return time.thread_time() + waited_ns / 1e9


class Processors:
    """How busy they all were, by everybody, over the last twentieth of a second or more; and the one of the loop.

    They are busy at once, and no more only after a while.

    Args:
        stat: The kernel's account: proc(5). Where it cannot be read they are never busy.
        processors: How many there are, if not as many as the machine has.
        loop_s: Processor time that the thread of the loop has wanted; asked in that thread.
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
        """Whether next to nothing of them was idle, or the loop had no time left.

        A look at one small file of the kernel's, at most twenty times a second.
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
