"""Bounds on starts loosen with the age of the oldest waiting call (agent specification 5).

The bounds keep a burst of calls from becoming a storm of starts. They may delay a call, but no call may fail because of
them while memory is free. They hold while the oldest call has waited for a small share of the time that it may wait,
then loosen in proportion, and end long before that time is over.

All shares are of that time, which is half of the timeout. Measured on two processors without idle time: 60 clients of
a function that computes for 100 ms get 10 containers and 31 calls/s. With shares of 0.1 and 0.35 instead of 0.2 and
0.45 they get 60 containers and 26 calls/s. Of 20 calls at once whose starts take 0.3 of that time each, none fails.
With shares of 0.4 and 0.65, 14 fail. test_bounds_on_starts_fail_no_call_while_memory_is_free plays the latter.
"""

from __future__ import annotations

from typing import Final

#: Share up to which the bounds hold completely. Lower: a steady load on busy processors, where calls wait longer than
#: in a burst, starts containers that are not useful. Higher: less time is left to start the useful ones.
_CALM: Final = 0.2
#: Share from which on no bound holds. The rest of the time is for the start itself.
_URGENT: Final = 0.45
#: Share from which on a start needs no permit. Higher than ``_URGENT``: permits still order what that lets through.
_HURRY: Final = 0.55
#: Share from which on containers that are kept ready give way.
_LATE: Final = 0.25
#: Looks in that time, so that a short timeout is noticed in time.
_LOOKS: Final = 20
#: Seconds between two looks at least: 50 looks a second cost one waiting function little.
_LEAST_LOOK_S: Final = 0.02


def allowed_wait_s(timeout_s: float) -> float:
    """Return how long a call may wait for its container."""
    return timeout_s / 2


def urgency(waited_s: float, timeout_s: float) -> float:
    """Return how far the bounds give way: 0 not at all, 1 completely."""
    share = waited_s / allowed_wait_s(timeout_s)
    return min(1.0, max(0.0, (share - _CALM) / (_URGENT - _CALM)))


def hurry_at(since: float, timeout_s: float) -> float:
    """Return when the start for a call that waits since ``since`` stops waiting for a permit."""
    return since + _HURRY * allowed_wait_s(timeout_s)


def late_at(since: float, timeout_s: float) -> float:
    """Return when containers that are kept ready give way to the call that waits since ``since``."""
    return since + _LATE * allowed_wait_s(timeout_s)


def look_again_s(timeout_s: float, at_most_s: float) -> float:
    """Return the time between two looks while a call waits."""
    return min(at_most_s, max(_LEAST_LOOK_S, allowed_wait_s(timeout_s) / _LOOKS))
