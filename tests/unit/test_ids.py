"""Ids: layout, order, uniqueness."""

import concurrent.futures

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models import ids

_MS = 1_000_000
PER_THREAD = 5_000  # raise it to 125_000 for a million


@given(st.integers(min_value=0, max_value=(1 << 128) - 1))
def test_an_id_decodes_to_what_was_encoded_in_either_case(value: int) -> None:
    text = ids.encode(value)
    assert len(text) == 26
    assert ids.decode(text) == value
    assert ids.decode(text.lower()) == value


@given(st.lists(st.integers(min_value=0, max_value=(1 << 128) - 1), min_size=2, max_size=2))
def test_the_order_of_texts_is_the_order_of_values(values: list[int]) -> None:
    first, second = values
    assert (ids.encode(first) < ids.encode(second)) == (first < second)


def test_the_layout_is_time_then_machine_then_counter() -> None:
    generate = ids.IdGenerator(ids.machine_id("10.1.2.3", 8080), lambda: 0x0123456789AB * _MS)
    first, second = ids.decode(generate()), ids.decode(generate())
    assert first == (0x0123456789AB << 80) | (0x0A010203 << 48) | (8080 << 32) | 1
    assert second == first + 1


@given(st.lists(st.integers(min_value=1, max_value=1 << 47), min_size=2, max_size=50))
def test_ids_increase_even_when_the_clock_steps_back(moments: list[int]) -> None:
    times = iter(moments)
    generate = ids.IdGenerator(1, lambda: next(times) * _MS)
    made = [generate() for _ in moments]
    assert made == sorted(set(made))


def test_the_order_holds_across_the_end_of_the_counter() -> None:
    generate = ids.IdGenerator(1, lambda: 5 * _MS, counter=(1 << 32) - 2)  # after four thousand million ids
    made = [generate() for _ in range(3)]
    assert made == sorted(set(made))
    assert [ids.decode(one) & 0xFFFFFFFF for one in made] == [(1 << 32) - 1, 0, 1]


def test_threads_and_processes_never_share_an_id() -> None:
    """Two processes of two ports, four threads each, one frozen clock: every id is used once."""
    generators = [ids.IdGenerator(ids.machine_id("10.1.2.3", port), lambda: 5 * _MS) for port in (8080, 8081)]

    def made(thread: int) -> list[str]:
        return [generators[thread % 2]() for _ in range(PER_THREAD)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(made, range(8)))
    assert all(one == sorted(one) for one in lists)
    assert len(set().union(*lists)) == 8 * PER_THREAD


@pytest.mark.parametrize("text", ["", "0" * 25, "0" * 27, "0" * 25 + "U", "8" + "0" * 25, "0" * 25 + "\u0661"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="id"):
        ids.decode(text)


def test_the_time_of_an_id_is_read_from_it_or_not_at_all() -> None:
    moment = 1_767_225_600_123
    assert ids.time_ms(ids.encode(moment << 80 | 77)) == moment
    assert ids.time_ms(ids.encode((1 << 128) - 1)) == (1 << 48) - 1
    for strange in ("", "01", "I" * 26, "7" + "Z" * 26, "8" + "0" * 25, ids.encode(moment << 80).lower()):
        assert ids.time_ms(strange) is None
    assert ids.first_of(moment) < ids.encode(moment << 80 | 1) < ids.first_of(moment + 1)
    assert (ids.first_of(-5), ids.time_ms(ids.first_of(1 << 60))) == ("0" * 26, (1 << 48) - 1)
