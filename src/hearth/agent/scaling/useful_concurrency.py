"""The useful number of containers of a function, judged by how fast they take waiting calls: sums over counts.

No duration of a call or of a start is used: one slow call or start would distort an average for long. Time counts only
while calls wait, so a pause teaches nothing, and the next burst uses what the last one showed.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: Seconds of waiting over which a rate is measured at least. Shorter: rates vary by chance. Longer: finding out takes
#: longer: with 0.8 s, 60 clients of a function that waits for 100 ms get 84 calls/s instead of 237 in their first 5 s.
#: tests/unit/test_useful_concurrency.py plays rates that vary by 20 % against it, and against the shares below.
_MEASURE_S: Final = 0.2
#: Seconds of one container per call above which a function is not tried: calls that wait behind long ones wait long,
#: and finding out would take too long.
_LONG_S: Final = 0.5
#: The same for a function that was tried: calls that use processors take longer the more of them run.
_TOO_LONG_S: Final = 1.0
#: Seconds of waiting after which starts that still last are ignored: they do not use processors any more.
_PATIENCE_S: Final = 1.0
#: Seconds of waiting until the next try after one that brought nothing; doubled each time. With doubling 14 containers
#: run after ten seconds of load where 4 are useful, and two dozen after ten minutes (ADR 9).
_HOLD_S: Final = 1.0
#: Share of the possible gain from which on more containers are useful. Higher: functions that wait get too few. Lower:
#: functions that compute get too many (test_concurrency.py plays both).
_GAIN: Final = 0.5
#: Gain that is needed in any case: from 28 to 30 containers less is chance (ADR 9).
_LEAST_GAIN: Final = 0.1
#: Measurements in a row below this share of the best rate after which a function counts as changed.
_LOWS: Final = 3
_LOW: Final = 0.5


class UsefulConcurrency(msgspec.Struct, frozen=True):
    """The useful number of containers of a quick function, found by trying.

    A function that waits for others is faster with more containers. One that computes is not, once it uses all
    processors. So half as many more are allowed. If calls are then not taken at a higher rate, that is all for a while.
    The next try comes when that time is over, or when the rate stays below half of the best one.

    Functions with long calls are not limited: finding out would take too long.

    Attributes:
        limit: Containers that are useful as far as known; None if nothing is known.
        best: A number of containers, and the best rate that they showed, calls per second of waiting.
        proven: The largest number that proved useful.
        hold_s: Seconds until the next try.
        hold_until: When that is over, in seconds of waiting.
        stand: Containers that serve and that start, at the last step.
        since: Waiting time and count at which the present measurement began.
        settled: False until new containers have taken part.
        first: The first of the two measurements that decide about more containers.
        lows: Measurements in a row that were low.
    """

    limit: int | None = None
    best: tuple[int, float] | None = None
    proven: int = 0
    hold_s: float = _HOLD_S
    hold_until: float = 0.0
    stand: tuple[int, int] = (0, 0)
    since: tuple[float, int] = (0.0, 0)
    settled: bool = False
    first: float | None = None
    lows: tuple[float, ...] = ()

    def after(self, waited_s: float, count: int, *, serving: int, starting: int) -> UsefulConcurrency:
        """Return what is known after one more look.

        Args:
            waited_s: Seconds during which calls have waited, in the life of the function.
            count: Waiting calls that containers took after another call, in the life of the function.
            serving: Containers that take calls.
            starting: Containers that are being started.
        """
        if (serving, starting) != self.stand:
            return _but(self, stand=(serving, starting), since=(waited_s, count), settled=False, first=None)
        spent, taken = waited_s - self.since[0], count - self.since[1]
        if serving * spent > (_LONG_S if self.limit is None else _TOO_LONG_S) * max(1, taken):
            return _but(self, limit=None, best=None, proven=0) if spent >= _MEASURE_S else self
        if taken < max(1, serving):  # also where all containers have ended: that is no pace of theirs
            return self
        if self.limit is None:
            return _but(self, limit=serving + starting) if serving else self
        if not self.settled:
            return _but(self, since=(waited_s, count), settled=True)
        if spent < (_PATIENCE_S if starting else _MEASURE_S):
            return self
        return _but(self._judged(serving, taken / spent, waited_s), since=(waited_s, count))

    def _judged(self, serving: int, rate: float, now: float) -> UsefulConcurrency:
        if self.best is None:
            return _trying(_but(self, proven=serving, hold_s=_HOLD_S), serving, rate, serving // 2)
        if serving > self.best[0]:
            return self._judged_more(serving, rate, now, *self.best)
        return self._judged_same(serving, rate, now, self.best[1])

    def _judged_more(self, serving: int, rate: float, now: float, known: int, best: float) -> UsefulConcurrency:
        """Judge the containers that have come, by two measurements."""
        if self.first is None:
            return _but(self, first=rate)
        rate = (self.first + rate) / 2
        judged = _but(self, first=None, best=(serving, max(rate, best)))
        if rate / best - 1 >= max(_LEAST_GAIN, _GAIN * (serving / known - 1)):
            return _but(judged, proven=serving, hold_s=_HOLD_S, limit=2 * serving)
        return _but(judged, limit=serving, hold_until=now + self.hold_s, hold_s=2 * self.hold_s)

    def _judged_same(self, serving: int, rate: float, now: float, best: float) -> UsefulConcurrency:
        """Judge whether it is time for another try, or whether the function has changed.

        The best rate of these containers counts, unless rates stay low: rates vary by chance on a busy machine, and
        against one that happened to be low any number of more containers looks useful.
        """
        lows = (*self.lows, rate) if rate < _LOW * best else ()
        if len(lows) == _LOWS:
            return _trying(_but(self, hold_s=_HOLD_S, lows=()), serving, max(lows), serving // 2)
        judged = _but(self, lows=lows)
        if self.limit is not None and self.limit <= serving and now >= self.hold_until:
            return _trying(judged, serving, max(rate, best), self.proven // 2)
        return _but(judged, best=(serving, max(rate, best)))


def _trying(known: UsefulConcurrency, serving: int, rate: float, more: int) -> UsefulConcurrency:
    """Allow enough more containers to show whether they help."""
    return _but(known, limit=serving + max(1, more), best=(serving, rate))


_but = msgspec.structs.replace
