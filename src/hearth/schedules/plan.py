"""The decision of a scheduler, as a pure function of a schedule and a clock."""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from hearth.models.schedule import ALL, ONCE, Schedule
from hearth.models.times import ZERO

#: A firing time that is no older is on time: nodes restart, and databases answer late.
ON_TIME: Final = dt.timedelta(seconds=30)
#: Missed firing times that ``if_missed: all`` makes up for, and firing times that one decision deals with.
MOST_MISSED: Final = 100
_TICK: Final = dt.timedelta(microseconds=1)


class Plan(NamedTuple):
    """The next step of a schedule.

    Attributes:
        fire: The firing times to make calls for, oldest first.
        is_missed: Firing times pass without a call of their own.
        next_at: The next firing time; ``ZERO`` for none.
    """

    fire: tuple[dt.datetime, ...]
    is_missed: bool
    next_at: dt.datetime


def plan(schedule: Schedule, now: dt.datetime) -> Plan:
    """Decide what a schedule does now.

    All firing times since the last decision that are at most 30 s old fire. Older ones were missed: none of them fires,
    or the newest if no other fires now, or the newest 100, as ``if_missed`` says.
    """
    if schedule.next_at == ZERO or schedule.next_at > now:
        return Plan((), False, schedule.next_at)
    rule, first, anchor = schedule.definition, schedule.next_at, schedule.anchor
    timing = rule.timing
    next_at = timing.after(now, anchor) or ZERO
    late = now - ON_TIME
    fire = timing.newest(max(first, late), now, anchor, MOST_MISSED)
    if first >= late:
        return Plan(tuple(fire), False, next_at)
    wanted = {ALL: MOST_MISSED, ONCE: 0 if fire else 1}.get(rule.if_missed, 0)
    missed = timing.newest(first, late - _TICK, anchor, wanted + 1)
    made_up = missed[-wanted:] if wanted else []
    return Plan((*made_up, *fire), len(missed) > len(made_up), next_at)


def next_from(schedule: Schedule, now: dt.datetime) -> dt.datetime:
    """Return the next firing time after the clock was set back; ``ZERO`` for none. What has fired does not fire again.

    It is the next one from 30 s ago on, when the clock may have been set, or an earlier one that is due.
    """
    if schedule.next_at == ZERO:
        return ZERO
    after = schedule.definition.timing.after(now - ON_TIME, schedule.anchor)
    return schedule.next_at if after is None else min(schedule.next_at, after)
