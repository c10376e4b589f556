"""How many containers of a function are of use, judged by how quickly they hand over: pure sums over counts.

Nothing here looks at the duration of one call or of one start. Time counts only while calls wait, so that a pause
teaches nothing, and the next burst finds what the last one showed.
"""

from __future__ import annotations

from typing import Final

#: The shortest time over which a pace is told, seconds.
LOOK_S: Final = 0.2
#: Where a call takes its container for longer than this, it is not tried whether more of them help.
_LONG_S: Final = 0.5
#: The same where it has been tried: calls of a function that uses processors take the longer the more of them run.
_TOO_LONG_S: Final = 1.0
#: Starts that last longer than this are not waited for: they use no processor any more.
_PATIENCE_S: Final = 1.0
#: For how long it is left at what was found, at first; each time doubled.
_HOLD_S: Final = 1.0
#: The share of what more containers could bring at best from which on they are of use.
_GAIN: Final = 0.5
#: What they have to bring in any case: less may be chance.
_LEAST_GAIN: Final = 0.1
#: So many looks in a row have to find less than this share of the best pace before the function is held for another.
_LOWS: Final = 3
_LOW: Final = 0.5


class WaitingTime:
    """Seconds during which somebody waited, of all time."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._since: float | None = None
        self._begun: float | None = None

    def note(self, now: float, *, waiting: bool) -> None:
        """Whether somebody waits from now on."""
        if self._since is not None:
            self.total_s += now - self._since
            if not waiting:
                self._begun = None
        elif waiting:
            self._begun = now
        self._since = now if waiting else None

    def lasted_s(self, now: float) -> float:
        """For how long somebody has waited, without a break, by now."""
        return 0.0 if self._begun is None else now - self._begun


class UsefulConcurrency:
    """How many containers of a quick function are of use, found by trying.

    A function that waits for others is the quicker the more containers it has; one that uses processors is not, once
    all of them work. So some more are allowed, and if calls were then not taken in a higher number, that is all for a
    while. The next try comes when that is over, or once the pace has stayed below half of the best for a while.

    Functions whose calls last long are not bounded: it would take too long to find out.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._best: tuple[int, float] | None = None
        self._proven = 0
        self._hold_s = _HOLD_S
        self._hold_until = 0.0
        self._stand = (0, 0)
        self._since = (0.0, 0)
        self._settled = False
        self._first_look: float | None = None
        self._lows: list[float] = []

    def __repr__(self) -> str:
        return f"<UsefulConcurrency limit={self._limit} best={self._best}>"

    @property
    def found(self) -> int | None:
        """What :meth:`limit` said last."""
        return self._limit

    def limit(self, waited_s: float, count: int, *, serving: int, starting: int) -> int | None:
        """The most containers that are of use as far as is known; None if nothing is.

        Args:
            waited_s: Seconds during which calls have waited, of all time.
            count: Calls that waited and were taken by containers that had ended another one, of all time.
            serving: Containers that take calls.
            starting: Containers that are being started.
        """
        if (serving, starting) != self._stand:
            self._stand = (serving, starting)
            self._begin(waited_s, count, settled=False)
            return self._limit
        spent, taken = waited_s - self._since[0], count - self._since[1]
        if serving * spent > (_LONG_S if self._limit is None else _TOO_LONG_S) * max(1, taken):
            if spent >= LOOK_S:
                self._limit, self._best, self._proven = None, None, 0
        elif self._limit is None:
            if taken >= serving > 0:
                self._limit = serving + starting  # they are quick: now it is worth a look what more of them bring
        elif not self._settled:
            if taken >= serving:  # those that are new have got into step
                self._begin(waited_s, count, settled=True)
        elif spent >= (_PATIENCE_S if starting else LOOK_S) and taken >= serving:
            self._judge(serving, taken / spent, waited_s)
            self._begin(waited_s, count, settled=True)
        return self._limit

    def _begin(self, waited_s: float, count: int, *, settled: bool) -> None:
        self._since = waited_s, count
        self._settled = settled
        if not settled:
            self._first_look = None

    def _judge(self, serving: int, rate: float, now: float) -> None:
        if self._best is None:
            self._proven, self._hold_s = serving, _HOLD_S
            self._try_more(serving, rate, serving // 2)
        elif serving > self._best[0]:
            self._judge_more(serving, rate, now)
        else:
            self._judge_same(serving, rate, now)

    def _judge_more(self, serving: int, rate: float, now: float) -> None:
        """Whether the containers that have come are of use, by two looks."""
        assert self._best is not None
        if self._first_look is None:
            self._first_look = rate
            return
        rate, self._first_look = (self._first_look + rate) / 2, None
        known, best = self._best
        if rate / best - 1 >= max(_LEAST_GAIN, _GAIN * (serving / known - 1)):
            self._proven, self._hold_s = serving, _HOLD_S
            self._limit = 2 * serving
        else:
            self._limit = serving
            self._hold_until = now + self._hold_s
            self._hold_s *= 2
        self._best = serving, max(rate, best)

    def _judge_same(self, serving: int, rate: float, now: float) -> None:
        """Whether it is time for another try, or the function has become another.

        The best of what these have shown counts: on a busy machine each pace is another, and one that happened to be
        low would make any number of more containers look useful. Unless it stays low.
        """
        assert self._best is not None
        best = self._best[1]
        self._lows = [*self._lows, rate] if rate < _LOW * best else []
        if len(self._lows) == _LOWS:  # it is not what it was
            self._hold_s = _HOLD_S
            self._try_more(serving, max(self._lows), serving // 2)
            self._lows = []
        elif self._limit is not None and self._limit <= serving and now >= self._hold_until:
            self._try_more(serving, max(rate, best), self._proven // 2)
        else:
            self._best = serving, max(rate, best)

    def _try_more(self, serving: int, rate: float, more: int) -> None:
        """So many more that it shows whether they help."""
        self._limit = serving + max(1, more)
        self._best = serving, rate
