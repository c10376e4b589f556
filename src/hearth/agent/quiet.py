"""Keeps a container from its next call while its output may still bring something of the last one.

Where a driver delivers stderr and the answer on two ways (``stderr_lags``), a line that was written before the answer
may come after it, and nothing in it tells whose it is. So a container that writes to stderr is offered again only once
its stderr has been quiet for a moment. The moment is a multiple of what lines were late by recently, and at least of
what our own timers were: a busy machine makes it longer.

A container on probation is offered again only once its stdout has been quiet for a moment, too.

The answer does not wait for it, and a proven container that writes nothing to stderr is offered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hearth.agent.stderr import ContainerStderr
from hearth.aio.clock import Clock
from hearth.drivers.base import Answers

#: Bounds of the moment, and how many times the longest delay it is, seconds.
_MIN_QUIET_S: Final = 0.005
_MAX_QUIET_S: Final = 0.05
_MARGIN: Final = 4
#: A container that writes without a pause is not waited for.
_LIMIT_S: Final = 0.2
#: How much of the longest delay is remembered at the next call that waits.
_FADE: Final = 0.998
#: Seconds to the next look where something waits in the kernel.
_AGAIN_S: Final = 0.001


class Lag:
    """The present delay of output on this node."""

    def __init__(self) -> None:
        self._longest_s = 0.0

    def __repr__(self) -> str:
        return f"<Lag quiet={self.quiet_s:g}s>"

    @property
    def quiet_s(self) -> float:
        """Return how long stderr has to be quiet."""
        return min(max(_MIN_QUIET_S, self.margin_s), _MAX_QUIET_S)

    @property
    def margin_s(self) -> float:
        """Return how long to wait for what may be late, with a margin."""
        return _MARGIN * self._longest_s

    def note(self, late_s: float) -> None:
        """Note how late a line came, or may come; 0 for none."""
        self._longest_s = max(late_s, self._longest_s * _FADE)


class QuietWait:
    """The waits of one container after its answers."""

    __slots__ = (
        "_answered_at",
        "_answers",
        "_awaits_stderr",
        "_clock",
        "_lag",
        "_settled",
        "_stderr",
        "_stdout_s",
        "_timer",
    )

    def __init__(self, clock: Clock, lag: Lag, answers: Answers, stderr: ContainerStderr) -> None:
        self._clock = clock
        self._lag = lag
        self._answers = answers
        self._stderr = stderr
        self._awaits_stderr = False
        self._stdout_s = 0.0
        self._answered_at = 0.0
        self._settled: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<QuietWait{' waits' if self._timer else ''}>"

    def begin(self, settled: Callable[[], None], *, stdout_s: float) -> bool:
        """Wait until nothing more is expected of the answer that has just ended.

        Args:
            settled: Called then.
            stdout_s: How long stdout has to be quiet; 0 if it is not watched.

        Returns:
            False if nothing is expected: ``settled`` is not called.
        """
        self._awaits_stderr = self._stderr.expects_more()
        if not (self._awaits_stderr or stdout_s):
            return False
        self._stdout_s = stdout_s
        self._answered_at = self._clock.monotonic()
        self._settled = settled
        self._look(self._answered_at)
        return True

    def cancel(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._settled = None

    def _look(self, looked_for_at: float) -> None:
        now, limit = self._clock.monotonic(), self._answered_at + _LIMIT_S
        heard_at = self._stderr.heard_at
        self._lag.note(max(0.0, (now - looked_for_at) / _MARGIN, heard_at - self._answered_at))
        due = self._answered_at + self._stdout_s
        if self._awaits_stderr:
            due = max(due, max(self._answered_at, heard_at) + self._lag.quiet_s)
        due = min(due, limit)
        if due <= now < limit and (self._stderr.has_unseen() or self._answers.unseen()):
            due = now + _AGAIN_S
        if now < due:
            self._timer = self._clock.call_at(due, self._look, due)
            return
        self._timer = None
        settled, self._settled = self._settled, None  # it refers to the owner of this object
        if settled is not None:
            settled()
