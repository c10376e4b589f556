"""The calls whose id tells another time than their creation: lists by time look for them apart."""

from __future__ import annotations

import datetime as dt

from hypothesis import example, given
from hypothesis import strategies as st

from hearth.models.call import Call
from hearth.models.ids import encode
from hearth.models.times import EPOCH
from hearth.stores.records.rows import from_calls

_MICROSECOND = dt.timedelta(microseconds=1)
_SECOND = dt.timedelta(seconds=1)
#: Microseconds since the epoch, up to about the year 2200.
moments = st.integers(0, 7_000_000_000 * 1_000_000)


@given(created_us=moments, apart_ms=st.integers(-2500, 2500), rest=st.integers(0, (1 << 80) - 1))
@example(created_us=1_700_000_000_000_000, apart_ms=1000, rest=0)
@example(created_us=1_700_000_000_999_999, apart_ms=-1000, rest=0)
@example(created_us=1_700_000_000_999_999, apart_ms=1000, rest=(1 << 80) - 1)
@example(created_us=500_000, apart_ms=-2000, rest=0)
def test_a_call_is_stray_if_its_id_tells_a_time_more_than_a_second_away(
    created_us: int, apart_ms: int, rest: int
) -> None:
    made_ms = max(0, created_us // 1000 + apart_ms)
    created_at, made_at = EPOCH + created_us * _MICROSECOND, EPOCH + made_ms * 1000 * _MICROSECOND
    call = Call(id=encode(made_ms << 80 | rest), app_name="a", path="/f", created_at=created_at)
    assert [row.id for row in from_calls([(call, None)]).strays] == [call.id] * (abs(created_at - made_at) > _SECOND)


@given(created_us=moments, text=st.text(max_size=30))
def test_a_call_whose_id_tells_no_time_is_stray(created_us: int, text: str) -> None:
    created_at = EPOCH + created_us * _MICROSECOND
    call = Call(id=f"~{text}", app_name="a", path="/f", created_at=created_at)
    assert [row.id for row in from_calls([(call, None)]).strays] == [call.id]
