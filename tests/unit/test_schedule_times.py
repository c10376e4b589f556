"""When schedules fire: time zones, daylight saving, intervals, and what is missed."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.models.errors import InvalidSchedule
from hearth.models.schedule import ALL, IF_MISSED, ONCE, SKIP, Definition, Schedule, schedule_of
from hearth.models.times import ZERO
from hearth.models.timing import Timing, refuse_past, validate_timing
from hearth.schedules.plan import MOST_MISSED, ON_TIME, next_from, plan

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TICK = dt.timedelta(microseconds=1)
BERLIN = "Europe/Berlin"


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def fired(timing: Timing, first: str, last: str) -> list[str]:
    """Return the firing times of two days, as texts."""
    return [f"{time:%d %H:%M}" for time in timing.newest(utc(first), utc(last), NOW, 1000)]


# Clocks in Berlin skip 02:00 to 03:00 on 29 March 2026 (01:00 UTC), and repeat it on 25 October (00:00 to 02:00 UTC).
SPRING, AUTUMN = ("2026-03-28T12:00", "2026-03-30T12:00"), ("2026-10-24T12:00", "2026-10-26T12:00")


@pytest.mark.parametrize(
    ("cron", "days", "expected"),
    [
        ("30 2 * * *", SPRING, ["29 01:00", "30 00:30"]),  # the hour is skipped: right after it
        ("30 2 * * *", AUTUMN, ["25 00:30", "26 01:30"]),  # the hour is repeated: once
        ("0,15,30 2 * * *", SPRING, ["29 01:00", "30 00:00", "30 00:15", "30 00:30"]),  # three times of day, one moment
        ("0 3 * * *", SPRING, ["29 01:00", "30 01:00"]),
        ("59 1 * * *", SPRING, ["29 00:59", "29 23:59"]),
    ],
)
def test_a_fixed_time_fires_once_each_day(cron: str, days: tuple[str, str], expected: list[str]) -> None:
    assert fired(Timing(cron=cron, timezone=BERLIN), *days) == expected


@pytest.mark.parametrize("days", [SPRING, AUTUMN])
def test_every_hour_fires_each_hour_of_real_time(days: tuple[str, str]) -> None:
    found = Timing(cron="0 * * * *", timezone=BERLIN).newest(utc(days[0]), utc(days[1]), NOW, 1000)
    assert found == [utc(days[0]) + n * dt.timedelta(hours=1) for n in range(49)]


def test_an_interval_counts_from_its_anchor_whatever_the_clock_on_the_wall_does() -> None:
    anchor = utc("2026-03-28T23:59:57")
    found = Timing(every="1h30m").coming(anchor, anchor, 4)
    assert found == [anchor + n * dt.timedelta(minutes=90) for n in range(1, 5)]


def test_one_time_fires_once() -> None:
    timing = validate_timing(Timing(at="2026-05-01T12:00:00+02:00"), NOW)
    assert timing.coming(NOW, NOW, 5) == [utc("2026-05-01T10:00:00")]
    refuse_past(timing, NOW)
    with pytest.raises(InvalidSchedule, match=r"at: .* is in the past"):
        refuse_past(timing, utc("2026-05-01T10:00:00"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "exactly one of cron, every and at"),
        ({"cron": "* * * * *", "every": "1h"}, "exactly one of cron, every and at"),
        ({"cron": "* * * *"}, "cron: it must have five fields"),
        ({"cron": "0 0 * * * *"}, "cron: it must have five fields"),
        ({"cron": "61 * * * *"}, "cron: .* bad minute"),
        ({"cron": "0 0 30 2 *"}, "cron: .* bad day-of-month, or no month has such a day"),
        ({"cron": "0 0 31 4,6,9,11 *"}, "cron: .* no month has such a day"),
        ({"cron": "0 0 30 2 *", "timezone": BERLIN}, "cron: .* no month has such a day"),
        ({"cron": "* * * * *" + " " * 300 + "x"}, "cron: it must have five fields"),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is no time zone"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "timezone: "),
        ({"cron": "* * * * *", "timezone": "Europe"}, "timezone: "),
        ({"cron": "* * * * *", "timezone": "x" * 10_000}, "timezone: "),
        ({"every": "90"}, "every: '90' must be a duration"),
        ({"every": "0s"}, "every: "),
        ({"every": "367d"}, "every: "),
        ({"every": "-5s"}, "every: "),
        ({"every": "1h", "timezone": BERLIN}, "timezone: only cron has a time zone"),
        ({"at": "tomorrow"}, "at: 'tomorrow' must be an RFC 3339 time"),
        ({"at": "2026-02-30T00:00:00Z"}, "at: "),
    ],
)
def test_a_wrong_timing_is_refused_by_the_name_of_its_field(given: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidSchedule, match=f"^Invalid schedule: {problem}"):
        validate_timing(Timing(**given), NOW)


@given(st.text(st.sampled_from("0123456789*/,-L#WMONJAX ٣"), max_size=24))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_cron_expression_that_fires_or_is_refused(text: str) -> None:
    try:
        timing = validate_timing(Timing(cron=text), NOW)
    except InvalidSchedule:
        return
    assert timing.after(NOW, NOW) is not None


# -- properties of the arithmetic --------------------------------------------------------------------------------------

_NUMBERS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 28), "month": (1, 12), "weekday": (0, 6)}


def _field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(1, 30).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=2, max_size=4).map(lambda found: ",".join(map(str, found))),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    )


crons = st.builds(
    lambda fields, zone: Timing(cron=" ".join(fields), timezone=zone),
    st.tuples(*[_field(*bounds) for bounds in _NUMBERS.values()]),
    st.sampled_from(["", BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu"]),
)
intervals = st.integers(1, 400_000).map(lambda seconds: Timing(every=f"{seconds}s"))
moments = st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2028, 1, 1)).map(lambda time: time.replace(tzinfo=dt.UTC))


@given(crons | intervals, moments)
@settings(max_examples=200, deadline=None)
def test_firing_times_only_rise_and_none_lies_between_two(timing: Timing, moment: dt.datetime) -> None:
    found = timing.coming(moment, NOW, 4)
    assert found == sorted(set(found))
    assert all(time > moment for time in found)
    for earlier, later in zip([moment, *found], found, strict=False):
        middle = earlier + (later - earlier) / 2
        assert timing.after(middle, NOW) == later
        assert timing.after(later - TICK, NOW) == later


@given(crons, moments)
@settings(max_examples=200, deadline=None)
def test_a_firing_time_has_the_minute_and_hour_of_its_expression_except_after_a_gap(
    timing: Timing, moment: dt.datetime
) -> None:
    zone = zoneinfo.ZoneInfo(timing.timezone or "UTC")
    minutes, hours = timing.cron.split()[:2]
    for time in timing.coming(moment, NOW, 2):
        local = time.astimezone(zone)
        if local.utcoffset() != (time - dt.timedelta(hours=3)).astimezone(zone).utcoffset():
            continue  # clocks were changed just before
        assert local.second == local.microsecond == 0
        assert minutes.isdigit() is False or local.minute == int(minutes)
        assert hours.isdigit() is False or local.hour == int(hours)


@given(crons | intervals, moments, st.integers(0, 200_000), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_the_newest_times_are_the_end_of_all_times(timing: Timing, first: dt.datetime, span: int, most: int) -> None:
    last = first + dt.timedelta(seconds=min(span, 1000 if timing.every else span))
    every: list[dt.datetime] = []
    moment = timing.after(first - TICK, NOW)
    while moment is not None and moment <= last:
        every.append(moment)
        moment = timing.after(moment, NOW)
    assert timing.newest(first, last, NOW, most) == every[-most:]


# -- what a scheduler does ---------------------------------------------------------------------------------------------


def schedule(timing: Timing, next_at: dt.datetime = NOW, **rule: Any) -> Schedule:
    definition = Definition(function="/f", timing=timing, **rule)
    return Schedule(app_name="a", app_id="A", name="s", id="S", definition=definition, anchor=NOW, next_at=next_at)


MINUTELY = Timing(cron="* * * * *")


def minute(count: float) -> dt.datetime:
    return NOW + dt.timedelta(minutes=count)


def test_nothing_fires_before_its_time() -> None:
    wanted = schedule(MINUTELY, minute(1))
    assert plan(wanted, minute(1) - TICK) == ((), False, minute(1))
    assert plan(wanted, minute(1)) == ((minute(1),), False, minute(2))


@pytest.mark.parametrize("if_missed", IF_MISSED)
def test_a_time_that_is_a_little_late_fires_whatever_the_policy(if_missed: str) -> None:
    wanted = schedule(Timing(every="10s"), NOW + dt.timedelta(seconds=10), if_missed=if_missed)
    fire, is_missed, _ = plan(wanted, NOW + dt.timedelta(seconds=35))
    assert ([(time - NOW).seconds for time in fire], is_missed) == ([10, 20, 30], False)


@pytest.mark.parametrize(
    ("if_missed", "at", "expected", "is_missed"),
    [
        (SKIP, 5.75, [], True),
        (ONCE, 5.75, [5], True),
        (ALL, 5.75, [1, 2, 3, 4, 5], False),
        (SKIP, 5.25, [5], True),
        (ONCE, 5.25, [5], True),  # the one that is on time stands for those before
        (ALL, 5.25, [1, 2, 3, 4, 5], False),
        (ONCE, 1.75, [1], False),
    ],
)
def test_missed_times_fire_as_the_policy_says(if_missed: str, at: float, expected: list[int], is_missed: bool) -> None:
    found = plan(schedule(MINUTELY, minute(1), if_missed=if_missed), minute(at))
    assert found == (tuple(map(minute, expected)), is_missed, minute(int(at) + 1))


def test_a_year_of_missed_minutes_makes_a_bounded_number_of_calls() -> None:
    found = plan(schedule(MINUTELY, minute(1), if_missed=ALL), minute(525_600.75))
    assert found.fire == tuple(minute(525_600 - n) for n in reversed(range(MOST_MISSED)))
    assert found.is_missed


@given(crons | intervals, st.sampled_from(IF_MISSED), st.lists(st.integers(0, 5_000), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_no_time_fires_twice_and_looks_in_time_miss_none(timing: Timing, if_missed: str, steps: list[int]) -> None:
    """Looks at any intervals: what fires rises strictly; with ``all`` nothing is left out below the bound."""
    current = schedule(timing, timing.after(NOW, NOW) or ZERO, if_missed=if_missed)
    clock = NOW
    made: list[dt.datetime] = []
    for step in steps:
        clock += dt.timedelta(seconds=step)
        found = plan(current, clock)
        made += found.fire
        assert found.next_at > clock
        assert all(time <= clock for time in found.fire)
        current = schedule(timing, found.next_at, if_missed=if_missed)
    assert made == sorted(set(made))
    due = timing.newest(NOW + TICK, clock, NOW, 50_000)
    if max(steps) <= ON_TIME.total_seconds() or (if_missed == ALL and len(due) <= MOST_MISSED):
        assert made == due[-len(made) :] if len(due) > MOST_MISSED else made == due


def test_after_the_clock_was_set_back_the_next_time_is_one_from_now_on() -> None:
    far = schedule(MINUTELY, minute(600))
    assert next_from(far, minute(1.75)) == minute(2)
    assert next_from(far, minute(1.25)) == minute(1)  # the clock may have been set just before
    assert next_from(schedule(MINUTELY, minute(1)), minute(1.5)) == minute(1)  # it is due: it must not be lost
    assert next_from(schedule(MINUTELY, ZERO), minute(1.5)) == ZERO


def test_a_change_keeps_the_next_time_unless_it_concerns_the_timing() -> None:
    def changed(stored: Schedule | None, at: float, **rule: Any) -> Schedule:
        return schedule_of(Definition(function="/f", **rule), "a", "A", "s", stored, "new", minute(at))

    first = changed(None, 0, timing=Timing(every="10m"))
    assert (first.id, first.next_at) == ("new", minute(10))
    other = changed(first, 7, timing=Timing(every="10m"), payload="x")
    assert (other.id, other.next_at, other.created_at, other.updated_at) == ("new", minute(10), minute(0), minute(7))
    off = changed(other, 8, timing=Timing(every="10m"), enabled=False)
    assert (off.next_at, off.coming(minute(8))) == (ZERO, [])
    on = changed(off, 25, timing=Timing(every="10m"))
    assert on.coming(minute(25)) == [minute(30), minute(40), minute(50), minute(60), minute(70)]
    assert changed(on, 26, timing=Timing(every="5m")).next_at == minute(31)
