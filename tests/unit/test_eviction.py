"""Who gives way when memory is short."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hearth.agent.eviction import Standby
from hearth.agent.resources import Crowd, Returned, Shortage
from hearth.agent.shares import Share
from hearth.models.function import NOTHING, Amount

SHARE = Share("shop")


class Hot:
    def __init__(self, key: str, memory_mib: int = 128, shared_mib: int | None = None) -> None:
        self.key = key.encode()
        self.is_sync = True
        self.share = SHARE
        self.kept_idle = 0
        self.returned = Returned(Amount(memory_mib, 0), Amount(memory_mib if shared_mib is None else shared_mib, 0))


def standby(*idle: Hot) -> Standby[Hot]:
    made: Standby[Hot] = Standby()
    for hot in idle:
        made.idle[hot] = None
    return made


def shortage(lack: int, *keys: str, least: int | None = None, is_sync: bool = True) -> Shortage:
    waiting = frozenset(key.encode() for key in keys or ("waiting",))
    first = Amount(lack if least is None else least, 0)
    return Shortage(first, Amount(lack, 0), is_sync, waiting, first, SHARE)


def test_as_few_as_needed_longest_idle_first() -> None:
    old, new = Hot("a"), Hot("b")
    assert standby(old, new).choose(shortage(128)) == [old]
    assert standby(old, new).choose(shortage(129)) == [old, new]


def test_a_function_that_keeps_another_gives_way_first() -> None:
    last_one, surplus, kept = Hot("a"), Hot("b"), Hot("b")
    assert standby(last_one, surplus, kept).choose(shortage(128)) == [surplus]
    assert standby(last_one, surplus, kept).choose(shortage(256)) == [surplus, last_one]


def test_a_function_that_waits_itself_does_not_give_way() -> None:
    own, other, stranger = Hot("a"), Hot("b"), Hot("c")
    assert standby(own, other, stranger).choose(shortage(128, "a", "b")) == [stranger]


def test_nobody_goes_if_that_would_not_serve_even_the_first() -> None:
    assert standby(Hot("a"), Hot("b")).choose(shortage(300)) == []
    assert standby(Hot("a", 512, shared_mib=100)).choose(shortage(300, is_sync=False)) == []


def test_the_first_is_served_even_if_those_behind_it_cannot_be() -> None:
    one, two = Hot("a"), Hot("b")
    assert standby(one, two).choose(shortage(1000, least=200)) == [one, two]


def test_what_is_on_its_way_out_counts() -> None:
    going, staying = Hot("a"), Hot("b")
    made = standby(going, staying)
    made.leaving(going)
    made.leaving(going)
    assert made.choose(shortage(128)) == []
    assert made.choose(shortage(256)) == [staying]
    made.gone(going)
    assert made.choose(shortage(128)) == [staying]


def test_whoever_is_busy_does_not_give_way() -> None:
    hot = Hot("a")
    made = standby(hot)
    del made.idle[hot]
    assert made.choose(shortage(1)) == []
    made.idle[hot] = None
    assert made.choose(shortage(1)) == [hot]


def test_what_cannot_help_stays() -> None:
    reserve_only, helpful = Hot("a", 128, shared_mib=0), Hot("b")
    assert standby(reserve_only, helpful).choose(shortage(1, is_sync=False)) == [helpful]


def test_what_idle_containers_of_async_functions_hold_is_known() -> None:
    hot = Hot("a")
    hot.is_sync = False
    made = standby(hot, Hot("b"))
    assert made.idle_async == Amount(128, 0)
    made.leaving(hot)
    assert made.idle_async == Amount(0, 0)


def test_containers_kept_ready_go_last_and_only_for_a_late_call() -> None:
    surplus, kept, other, last_one = Hot("a"), Hot("a"), Hot("b"), Hot("c")
    for hot in (surplus, kept, other):
        hot.kept_idle = 1
    made = standby(kept, surplus, other, last_one)
    assert made.choose(shortage(256)) == [kept, last_one], "one of two that are equal, and what nobody keeps"
    assert made.choose(shortage(384)) == []
    assert made.beyond_idle(shortage(384)) == Amount(128, 0)
    assert made.choose(shortage(384), is_late=True) == [kept, last_one, surplus]
    assert made.beyond_idle(shortage(384), is_late=True) == Amount(0, 0)
    crowd = Crowd(SHARE, 384, b"waiting")
    assert made.choose_own(crowd) == []
    assert made.choose_own(crowd, is_late=True) == [kept, last_one, surplus]


@given(
    idle=st.lists(st.builds(Hot, st.sampled_from("abcd"), st.integers(1, 300)), max_size=8),
    lack=st.integers(1, 1500),
    least=st.integers(1, 300),
)
def test_those_who_go_are_needed_and_enough(idle: list[Hot], lack: int, least: int) -> None:
    chosen = standby(*idle).choose(shortage(max(lack, least), "a", least=least))
    gains = [hot.returned.to_sync.memory_mib for hot in chosen]
    others = [hot for hot in idle if hot.key != b"a"]
    possible = sum((hot.returned.to_sync for hot in others), NOTHING).memory_mib
    assert set(chosen) <= set(others)
    assert bool(chosen) == (possible >= least)
    if chosen:
        assert sum(gains) >= min(max(lack, least), possible)
        assert sum(gains[:-1]) < max(lack, least)
