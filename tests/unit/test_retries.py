"""Retries: the rules of a policy, and the decision about an attempt that has ended."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.agent.call import FunctionAnswered
from hearth.agent.outcomes import Stopped
from hearth.async_calls.retries import Interrupted, Retry, Verdict, decide, failure_of, next_attempt
from hearth.models.call import ERROR, QUEUED, Call
from hearth.models.delivery import NO_RULES, validate_delivery
from hearth.models.errors import CallCancelled, CallTimeout, ContainerExited, InvalidDelivery
from hearth.models.message import decode_call, encode_call
from hearth.models.retry import FAILURES, FULL, NONE, Failure, RetryPolicy, validate_retry
from hearth.models.times import ZERO

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    backoff_s=st.floats(0, 86_400),
    factor=st.floats(1, 10),
    max_s=st.floats(0, 86_400),
    jitter=st.sampled_from([FULL, NONE]),
    on=st.lists(st.sampled_from(FAILURES), min_size=1, unique=True).map(tuple),
)
CHANCES = st.floats(0, 1, exclude_max=True)


@given(POLICIES, st.sampled_from([None, *Failure]), CHANCES)
def test_a_call_is_run_at_most_as_often_as_its_policy_says_and_only_after_what_it_names(
    policy: RetryPolicy, failure: Failure | None, chance: float
) -> None:
    attempt = 1
    while isinstance(decision := decide(failure, attempt, policy, chance), Retry):
        assert failure is not None
        assert failure.value in policy.on
        assert 0 <= decision.after_s <= policy.max_s
        attempt += 1
    assert attempt <= policy.attempts
    if failure is None:
        assert (attempt, decision) == (1, Verdict.DONE)
    else:
        assert decision is Verdict.DEAD
        assert attempt == (policy.attempts if failure.value in policy.on else 1)


@given(POLICIES, st.integers(1, 18), CHANCES)
def test_pauses_grow_up_to_their_limit_and_jitter_only_shortens_them(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    policy = msgspec.structs.replace(policy, attempts=20, on=("error",), jitter=NONE)
    first, second = (decide(Failure.ERROR, n, policy, chance) for n in (attempt, attempt + 1))
    jittered = decide(Failure.ERROR, attempt, msgspec.structs.replace(policy, jitter=FULL), chance)
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert isinstance(jittered, Retry)
    assert first.after_s == min(policy.max_s, policy.backoff_s * policy.factor ** (attempt - 1))
    assert first.after_s <= second.after_s
    assert jittered.after_s <= first.after_s


def test_the_pauses_of_the_usual_policy_double_from_a_second() -> None:
    policy = RetryPolicy(attempts=20, jitter=NONE)
    decisions = [decide(Failure.ERROR, attempt, policy, 0.5) for attempt in range(1, 12)]
    assert [decision.after_s for decision in decisions if isinstance(decision, Retry)] == [
        *(1, 2, 4, 8, 16, 32, 64, 128, 256),
        *(300, 300),
    ]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (None, None),
        (CallCancelled(), None),
        (CallTimeout(), Failure.TIMEOUT),
        (FunctionAnswered(503), Failure.STATUS_5XX),
        (Interrupted(), Failure.INTERRUPTED),
        (Stopped(), Failure.INTERRUPTED),
        (ContainerExited(3), Failure.ERROR),
        (ValueError("x"), Failure.ERROR),
    ],
)
def test_errors_of_attempts_are_told_apart(error: Exception | None, failure: Failure | None) -> None:
    assert failure_of(error) is failure


def test_the_next_attempt_remembers_the_last_twenty_and_nothing_of_their_ends() -> None:
    call = Call(id="a", app_name="a", path="/p", type="async", payload=b"body", headers={"X": ["y"]}, attempt=1)
    call.retry = RetryPolicy(attempts=20)
    for number in range(1, 25):
        call.status, call.error, call.completed_at, call.delay = ERROR, "x" * 2000, NOW, 5
        call = next_attempt(call, "node", 3 * number)
        assert (call.attempt, call.status, call.error, call.completed_at) == (number + 1, QUEUED, "", ZERO)
    assert [past.attempt for past in call.attempts] == list(range(5, 25))
    past = call.attempts[-1]
    assert (past.node, past.status, len(past.error), past.started_at) == ("node", ERROR, 1000, "")
    assert (call.payload, call.headers, call.delay, call.earlier_deliveries) == (b"body", {"X": ["y"]}, 0, 72)
    assert decode_call(encode_call(call)) == call


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "retry must be an object, or null for none"),
        ({"tries": 3}, "retry: 'tries' is not one of attempts, backoff_s, factor, max_s, jitter, on"),
        ({"attempts": 0}, "retry: attempts must be an integer from 1 to 20"),
        ({"attempts": 21}, "retry: attempts must be an integer from 1 to 20"),
        ({"attempts": True}, "retry: attempts must be an integer from 1 to 20"),
        ({"attempts": 2.0}, "retry: attempts must be an integer from 1 to 20"),
        ({"backoff_s": -1}, "retry: backoff_s must be a number from 0 to 86400"),
        ({"backoff_s": "1"}, "retry: backoff_s must be a number from 0 to 86400"),
        ({"factor": 0.5}, "retry: factor must be a number from 1 to 10"),
        ({"max_s": 86401}, "retry: max_s must be a number from 0 to 86400"),
        ({"jitter": "some"}, "retry: jitter must be one of full, none"),
        ({"jitter": ["full"]}, "retry: jitter must be one of full, none"),
        ({"on": []}, "retry: on must be a list with at least one of error, timeout, status_5xx, interrupted"),
        ({"on": "error"}, "retry: on must be a list with at least one of error, timeout, status_5xx, interrupted"),
        ({"on": [["error"]]}, "retry: on must be a list with at least one of error, timeout, status_5xx, interrupted"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_the_reason(value: object, problem: str) -> None:
    with pytest.raises(InvalidDelivery) as caught:
        validate_delivery({"retry": value})
    assert caught.value.message == f"Invalid delivery: {problem}"


def test_a_policy_has_the_usual_values_where_it_says_nothing() -> None:
    assert validate_retry({}) == RetryPolicy()
    assert validate_retry({"ATTEMPTS": 5, "factor": None, "on": ["timeout", "timeout"]}) == RetryPolicy(
        attempts=5, on=("timeout",)
    )
    assert NO_RULES.changed({"retry": validate_retry({"attempts": 2})}).values()["retry"] == {
        "attempts": 2,
        "backoff_s": 1,
        "factor": 2,
        "max_s": 300,
        "jitter": "full",
        "on": ("error", "timeout", "status_5xx"),
    }
