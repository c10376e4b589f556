"""When a function gets another container: tables and properties of both policies, which are pure functions."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import LOOK_S, Decision, ScalingPolicy, Snapshot
from hearth.agent.scaling.demand import WaitingTime
from hearth.agent.scaling.patience import allowed_wait_s, hurry_at
from hearth.agent.scaling.simple import SimplePolicy
from hearth.agent.scaling.useful_concurrency import UsefulConcurrency
from hearth.agent.start_failures import back_off_s

ADAPTIVE, SIMPLE = AdaptivePolicy(), SimplePolicy()
POLICIES: dict[str, ScalingPolicy] = {
    "adaptive": ADAPTIVE,
    "adaptive, delayed": AdaptivePolicy(start_delay_s=0.5),
    "simple": SIMPLE,
    "simple, delayed": SimplePolicy(start_delay_s=0.5),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
#: Calls of a function with a timeout of 10 s may wait for 5 s.
TIMEOUT_S, NOW = 10.0, 1000.0
CALM, URGENT = NOW - 0.9, NOW - 2.3

COUNT = st.integers(0, 50)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any state of a function, those included that the agent never has."""
    busy = draw(COUNT)
    since = NOW - draw(st.floats(0, 6))
    return Snapshot(
        now=NOW,
        timeout_s=draw(st.sampled_from([0.5, 1.0, TIMEOUT_S, 300.0])),
        max_starts=draw(st.integers(1, 16)),
        waiting=draw(COUNT),
        oldest_since=since,
        waiting_since=since,
        waited_s=draw(st.floats(0, 100)),
        turnover=draw(st.integers(0, 1000)),
        idle=draw(COUNT),
        busy=busy,
        announced=draw(st.integers(0, busy)),
        getting_ready=draw(st.integers(0, busy)),
        starting=draw(COUNT),
        reserving=draw(COUNT),
        fits=draw(COUNT),
        cpu_busy=draw(st.booleans()),
        not_before=draw(st.sampled_from([0.0, NOW, NOW + 0.1, NOW + 3])),
        learned=draw(
            st.builds(UsefulConcurrency, limit=st.none() | st.integers(1, 50), best=st.none() | st.just((4, 10.0)))
        ),
    )


def snapshot(**fields: Any) -> Snapshot:
    """A function of which calls have waited for a moment, on a node with room for everything."""
    usual = {"now": NOW, "timeout_s": TIMEOUT_S, "max_starts": 2, "oldest_since": NOW, "waiting_since": NOW, "fits": 99}
    return Snapshot(**{**usual, **fields})


BURST = {"waiting": 20}


@pytest.mark.parametrize(
    ("policy", "fields", "starts", "withdrawals"),
    [
        (ADAPTIVE, {}, 0, 0),
        (ADAPTIVE, {"waiting": 1}, 1, 0),
        (ADAPTIVE, {"waiting": 3, "idle": 1, "announced": 1, "busy": 1}, 1, 0),
        (ADAPTIVE, {"waiting": 3, "starting": 1, "reserving": 1}, 1, 0),
        (ADAPTIVE, {"waiting": 1, "starting": 1, "reserving": 2}, 0, 2),
        # a burst asks for a few containers per permit at a time
        (ADAPTIVE, BURST, 8, 0),
        (ADAPTIVE, {**BURST, "reserving": 8}, 0, 0),
        (ADAPTIVE, {**BURST, "oldest_since": URGENT}, 20, 0),
        # without processor time as many get ready as there are permits, then as are ready
        (ADAPTIVE, {**BURST, "cpu_busy": True}, 2, 0),
        (ADAPTIVE, {**BURST, "cpu_busy": True, "busy": 5}, 5, 0),
        (ADAPTIVE, {**BURST, "cpu_busy": True, "busy": 5, "getting_ready": 2}, 1, 0),
        (ADAPTIVE, {**BURST, "cpu_busy": True, "reserving": 6}, 0, 4),
        (ADAPTIVE, {**BURST, "cpu_busy": True, "oldest_since": CALM}, 2, 0),
        (ADAPTIVE, {**BURST, "cpu_busy": True, "oldest_since": URGENT}, 20, 0),
        # what was useful in the last load holds for a burst, until it has lasted for a while
        (ADAPTIVE, {**BURST, "busy": 4, "learned": UsefulConcurrency(limit=4)}, 0, 0),
        (ADAPTIVE, {**BURST, "busy": 4, "learned": UsefulConcurrency(limit=6)}, 2, 0),
        (ADAPTIVE, {**BURST, "busy": 4, "learned": UsefulConcurrency(limit=4), "waiting_since": NOW - 0.2}, 8, 0),
        (ADAPTIVE, {**BURST, "learned": UsefulConcurrency(limit=4)}, 2, 0),
        # failed starts
        (ADAPTIVE, {"waiting": 1, "not_before": NOW + 0.1}, 0, 0),
        (ADAPTIVE, {"not_before": NOW + 0.1, "reserving": 1}, 0, 1),
        # one start for each waiting call, within memory and permits
        (SIMPLE, {}, 0, 0),
        (SIMPLE, {"waiting": 1}, 1, 0),
        (SIMPLE, BURST, 2, 0),
        (SIMPLE, {**BURST, "starting": 2}, 2, 0),
        (SIMPLE, {**BURST, "starting": 2, "reserving": 2}, 0, 0),
        (SIMPLE, {**BURST, "max_starts": 16}, 16, 0),
        (SIMPLE, {**BURST, "max_starts": 16, "fits": 5}, 5, 0),
        (SIMPLE, {**BURST, "max_starts": 16, "fits": 0}, 1, 0),
        (SIMPLE, {**BURST, "max_starts": 16, "fits": 0, "reserving": 1}, 0, 0),
        (SIMPLE, {**BURST, "cpu_busy": True, "max_starts": 16}, 16, 0),
        (SIMPLE, {**BURST, "fits": 0, "oldest_since": URGENT}, 20, 0),
        (SIMPLE, {"waiting": 1, "starting": 1, "reserving": 2}, 0, 2),
        # calls wait for a busy container first, if there is one
        (SimplePolicy(start_delay_s=0.5), {"waiting": 1, "busy": 1}, 0, 0),
        (SimplePolicy(start_delay_s=0.5), {"waiting": 1, "busy": 1, "oldest_since": NOW - 0.5}, 1, 0),
        (SimplePolicy(start_delay_s=0.5), {"waiting": 1}, 1, 0),
        (AdaptivePolicy(start_delay_s=0.5), {"waiting": 1, "busy": 1}, 0, 0),
        (AdaptivePolicy(start_delay_s=60.0), {"waiting": 1, "busy": 1, "oldest_since": NOW - 1.1}, 1, 0),
    ],
)
def test_the_decision(policy: ScalingPolicy, fields: dict[str, Any], starts: int, withdrawals: int) -> None:
    decided = policy.decide(snapshot(**fields))
    assert (decided.starts, decided.withdrawals) == (starts, withdrawals)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, LOOK_S),
        ({"timeout_s": 1.0}, 0.025),
        ({"timeout_s": 0.1}, 0.02),
        ({"not_before": NOW + 0.1}, 0.1),
        ({"not_before": NOW + 3}, LOOK_S),
    ],
)
def test_a_waiting_call_is_looked_at_again(fields: dict[str, Any], seconds: float) -> None:
    again = ADAPTIVE.decide(snapshot(waiting=1, **fields)).look_again_at
    assert again == pytest.approx(NOW + seconds)
    assert ADAPTIVE.decide(snapshot(**fields)).look_again_at is None


def test_the_end_of_a_start_delay_is_looked_at() -> None:
    delayed = SimplePolicy(start_delay_s=0.05)
    assert delayed.decide(snapshot(waiting=1, busy=1)).look_again_at == NOW + 0.05


@every_policy
@given(now=snapshots())
def test_never_more_starts_than_waiting_calls_that_nobody_serves(policy: ScalingPolicy, now: Snapshot) -> None:
    decided = policy.decide(now)
    effective_waiters = max(0, now.waiting - now.idle - now.announced)
    assert 0 <= decided.starts <= max(0, effective_waiters - now.starting - now.reserving)
    assert 0 <= decided.withdrawals <= now.reserving
    assert not (decided.starts and decided.withdrawals)
    assert decided.starts == 0 or now.not_before <= now.now


@every_policy
@given(now=snapshots())
def test_equal_snapshots_give_equal_decisions(policy: ScalingPolicy, now: Snapshot) -> None:
    assert policy.decide(now) == policy.decide(msgspec.structs.replace(now))


@given(waiting=COUNT, idle=COUNT, starting=COUNT, reserving=COUNT)
def test_the_decision_is_that_of_the_specification(waiting: int, idle: int, starting: int, reserving: int) -> None:
    decided = ADAPTIVE.decide(
        snapshot(waiting=waiting, idle=idle, starting=starting, reserving=reserving, max_starts=99)
    )
    effective_waiters = max(0, waiting - idle)
    assert (decided.starts > 0) == (effective_waiters > 0 and starting + reserving < effective_waiters)


@every_policy
@given(now=snapshots())
def test_a_call_that_nothing_can_serve_gets_a_start_at_once(policy: ScalingPolicy, now: Snapshot) -> None:
    alone = msgspec.structs.replace(
        now, waiting=max(1, now.waiting), idle=0, busy=0, announced=0, getting_ready=0, starting=0, reserving=0
    )
    assert (policy.decide(alone).starts > 0) == (now.not_before <= NOW)


@every_policy
@given(now=snapshots(), busy_later=st.booleans())
def test_no_bound_holds_for_half_of_the_time_that_a_call_may_wait(
    policy: ScalingPolicy, now: Snapshot, busy_later: bool
) -> None:
    """Look again when the decision says so, while containers start but none is ever ready."""
    now = msgspec.structs.replace(now, oldest_since=NOW, waiting_since=NOW, not_before=0.0)
    until = NOW + allowed_wait_s(now.timeout_s) / 2
    while True:
        decided = policy.decide(now)
        if decided.look_again_at is None or decided.look_again_at > until:
            break
        now = _later(now, decided, decided.look_again_at, cpu_busy=busy_later)
    starters = now.starting + now.reserving + decided.starts - decided.withdrawals
    assert starters >= now.waiting - now.idle - now.announced


def _later(now: Snapshot, decided: Decision, at: float, *, cpu_busy: bool) -> Snapshot:
    assert at > now.now
    reserving = now.reserving + decided.starts - decided.withdrawals
    return msgspec.structs.replace(
        now,
        now=at,
        waited_s=now.waited_s + at - now.now,
        reserving=reserving,
        fits=0,
        cpu_busy=cpu_busy,
        learned=decided.learned,
    )


def test_a_start_that_waits_for_its_permit_goes_on_before_its_call_fails() -> None:
    assert NOW + allowed_wait_s(TIMEOUT_S) / 2 < hurry_at(NOW, TIMEOUT_S) < NOW + 0.6 * allowed_wait_s(TIMEOUT_S)


@given(now=snapshots(), room=COUNT)
def test_what_proved_useless_is_withdrawn_on_busy_processors(now: Snapshot, room: int) -> None:
    now = msgspec.structs.replace(now, waiting_since=NOW, oldest_since=NOW, cpu_busy=True)
    free = msgspec.structs.replace(now, cpu_busy=False, learned=UsefulConcurrency())
    bound, unbound = ADAPTIVE.decide(now), ADAPTIVE.decide(free)
    assert bound.starts <= unbound.starts
    assert bound.withdrawals >= unbound.withdrawals


def test_time_without_waiting_calls_does_not_count() -> None:
    waiting = WaitingTime()
    for at, is_waiting in ((0.0, False), (1.0, True), (2.0, True), (4.0, False), (10.0, True)):
        waiting.note(at, waiting=is_waiting)
    assert (waiting.total_s, waiting.since) == (3.0, 10.0)
    waiting.note(11.0, waiting=False)
    assert (waiting.total_s, waiting.since) == (4.0, math.inf)


def test_back_off_doubles_up_to_its_limit() -> None:
    assert [back_off_s(n) for n in (0, 1, 2, 3, 20)] == [0.0, 0.025, 0.05, 0.1, 3.2]
