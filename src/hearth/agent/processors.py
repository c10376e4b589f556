"""Whether this machine's processors have time left: another container is of use only if it can run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hearth.clock import Clock

_SINCE_S: Final = 0.1
#: Idle time below which there is none: this share of all, or on few processors so much of one.
_IDLE_SHARE: Final = 0.1
_IDLE_OF_ONE: Final = 0.5


class Processors:
    """How busy they all were, by everybody, over the last tenth of a second or more.

    Args:
        stat: The kernel's account: proc(5). Where it cannot be read they are never busy.
        processors: How many there are, if not as many as the machine has.
    """

    def __init__(self, clock: Clock, stat: Path = Path("/proc/stat"), processors: int = 0) -> None:
        self._clock = clock
        self._stat = stat
        self._idle_share = max(_IDLE_SHARE, _IDLE_OF_ONE / (processors or os.cpu_count() or 1))
        self._read_at = clock.monotonic()
        self._before = self._read()
        self._busy = False

    def are_busy(self) -> bool:
        """Whether next to nothing of them was idle. A look at one small file of the kernel's, ten times a second."""
        now = self._clock.monotonic()
        if now - self._read_at >= _SINCE_S:
            idle, total = self._read()
            was_idle, was_total = self._before
            self._busy = total > was_total and (idle - was_idle) < self._idle_share * (total - was_total)
            self._read_at, self._before = now, (idle, total)
        return self._busy

    def _read(self) -> tuple[int, int]:
        try:
            fields = self._stat.read_text().partition("\n")[0].split()[1:]
            spent = [int(field) for field in fields[:8]]  # those behind are counted in the first ones, too
            return spent[3] + spent[4], sum(spent)
        except (OSError, ValueError, IndexError):
            return 0, 0
