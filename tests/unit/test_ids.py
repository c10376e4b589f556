"""Ids: layout, order, uniqueness."""

from hypothesis import given
from hypothesis import strategies as st

from hearth.models import ids


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
    generate = ids.IdGenerator(ids.machine_id("10.1.2.3", 8080), lambda: 0x0123456789AB)
    first, second = ids.decode(generate()), ids.decode(generate())
    assert first == (0x0123456789AB << 80) | (0x0A010203 << 48) | (8080 << 32) | 1
    assert second == first + 1


@given(st.lists(st.integers(min_value=1, max_value=1 << 47), min_size=2, max_size=50))
def test_ids_increase_even_when_the_clock_steps_back(moments: list[int]) -> None:
    times = iter(moments)
    generate = ids.IdGenerator(1, lambda: next(times))
    made = [generate() for _ in moments]
    assert made == sorted(set(made))
