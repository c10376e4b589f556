"""Timestamps and durations as texts."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models.times import EPOCH, ZERO, format_duration, format_time, parse_time

ZONES = st.timedeltas(min_value=dt.timedelta(hours=-14), max_value=dt.timedelta(hours=14)).map(
    lambda offset: dt.timezone(dt.timedelta(minutes=offset // dt.timedelta(minutes=1)))
)
MOMENTS = st.datetimes(min_value=dt.datetime(1, 1, 2), max_value=dt.datetime(9999, 12, 30), timezones=ZONES)


def cut(moment: dt.datetime) -> dt.datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@given(MOMENTS)
def test_a_time_survives_in_milliseconds(moment: dt.datetime) -> None:
    text = format_time(moment)
    assert len(text) == 24
    assert text.endswith("Z")
    assert parse_time(text) == cut(moment)
    assert format_time(parse_time(text)) == text


@given(MOMENTS, MOMENTS)
def test_the_order_of_texts_is_the_order_of_times(one: dt.datetime, other: dt.datetime) -> None:
    assert (format_time(one) < format_time(other)) == (cut(one) < cut(other))


@given(MOMENTS)
def test_a_time_of_any_zone_is_read(moment: dt.datetime) -> None:
    assert parse_time(moment.isoformat()) == moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2018-01-31T16:52:39.786Z", dt.datetime(2018, 1, 31, 16, 52, 39, 786_000, tzinfo=dt.UTC)),
        ("2018-01-31t16:52:39z", dt.datetime(2018, 1, 31, 16, 52, 39, tzinfo=dt.UTC)),
        ("2018-01-31T16:52:39.7Z", dt.datetime(2018, 1, 31, 16, 52, 39, 700_000, tzinfo=dt.UTC)),
        ("2018-01-31T16:52:39.123456789123Z", dt.datetime(2018, 1, 31, 16, 52, 39, 123_456, tzinfo=dt.UTC)),
        ("2018-01-31T16:52:39+01:30", dt.datetime(2018, 1, 31, 15, 22, 39, tzinfo=dt.UTC)),
        ("0001-01-01T00:00:00.000Z", ZERO),
        ("", EPOCH),
    ],
)
def test_a_time_is_read(text: str, expected: dt.datetime) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "2018-01-31",
        "2018-01-31 16:52:39Z",
        "2018-01-31T16:52:39",
        "2018-13-31T16:52:39Z",
        "2018-01-31T24:52:39Z",
        "2018-01-31T16:52:39.Z",
        "2018-01-31T16:52:39Z ",
        "0001-01-01T00:00:00+01:00",
        "\u0662018-01-31T16:52:39Z",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|month|hour"):
        parse_time(text)


def test_an_unset_time_is_year_one() -> None:
    assert format_time(ZERO) == "0001-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (1e-9, "1ns"),
        (999e-9, "999ns"),
        (1.5e-6, "1.5µs"),
        (1.234567e-3, "1.234567ms"),
        (0.1, "100ms"),
        (1, "1s"),
        (2.5, "2.5s"),
        (59.999999999, "59.999999999s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (3600, "1h0m0s"),
        (3661.001, "1h1m1.001s"),
        (100 * 3600, "100h0m0s"),
    ],
)
def test_a_duration_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_a_duration_can_be_read_back(nanos: int) -> None:
    units = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "µs": 10**3, "ns": 1}
    text, total, number = format_duration(nanos / 1e9), 0.0, ""
    rest = text
    while rest:
        unit = next(unit for unit in ("ms", "µs", "ns", "h", "m", "s") if rest.lstrip("0123456789.").startswith(unit))
        number, _, rest = rest.partition(unit)
        total += float(number) * units[unit]
    assert abs(total - nanos) <= 1 + nanos * 1e-15, text
