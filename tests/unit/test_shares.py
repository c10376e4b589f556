"""What an app may use of a node: its token bucket, its calls in progress, its accepted calls."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.scrape import Watch
from tests.support.steps import SteppedLoop

from hearth.agent.shares import Bucket, Share, Shares
from hearth.models.errors import QuotaExceeded, ServerBusy
from hearth.models.function import Amount, FunctionRef
from hearth.models.quotas import Quotas
from hearth.telemetry.metrics import Metrics

AMOUNT = Amount(128, 0)
REF = FunctionRef(id="1/f", app_id="1", app_name="shop", name="/f")


@pytest.mark.parametrize(
    ("quotas", "limits"),
    [
        (Quotas(concurrent_calls=1), True),
        (Quotas(calls_per_second=1), True),
        (Quotas(concurrent_calls=1, calls_per_second=1), True),
        (Quotas(memory_mib=1, waiting_calls=1, queued_calls=1), False),
    ],
)
def test_calls_are_admitted_one_by_one_where_a_quota_counts_them(quotas: Quotas, limits: bool) -> None:
    share = Share("shop")
    share.set_quotas(quotas)
    assert share.limits_calls is limits


@settings(deadline=None)
@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 100),
    gaps=st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200),
)
def test_a_bucket_gives_no_more_than_its_rate_and_burst_and_tells_when_to_come(
    rate: int, burst: int, gaps: list[float]
) -> None:
    bucket, now, taken = Bucket(rate, burst), 1000.0, []
    for gap in gaps:
        now += gap
        wait_s = bucket.take(now)
        if not wait_s:
            taken.append(now)
            continue
        assert 0 < wait_s <= 1 / rate + 1e-6
        now += wait_s
        assert not bucket.take(now), "a client that comes when it was told to is served"
        taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - taken[first]) * rate + 1e-3


def test_a_quiet_time_fills_the_bucket_up_to_its_burst() -> None:
    bucket = Bucket(10, 3)
    assert [bool(bucket.take(at)) for at in (0.0, 0.0, 0.0, 0.0)] == [False, False, False, True]
    assert [bool(bucket.take(60.0)) for _ in range(4)] == [False, False, False, True]


def test_a_refusal_names_the_quota_and_the_whole_seconds_until_the_next_token() -> None:
    metrics = Metrics()
    share = Shares(Quotas(), metrics).of(REF)
    share.set_quotas(Quotas(calls_per_second=1, burst=2))
    share.admit(5.0)
    share.admit(5.0)
    with pytest.raises(QuotaExceeded, match=r"^App shop exceeds its quota calls_per_second \(1\)$") as refused:
        share.admit(5.25)
    assert refused.value.headers == {"Retry-After": "1"}
    share.set_quotas(Quotas(concurrent_calls=2))
    with pytest.raises(QuotaExceeded, match=r"concurrent_calls \(2\)$"):
        share.admit(9.0)
    share.leave()
    share.admit(9.0)
    watch = Watch(metrics)
    assert watch("hearth_quota_refusals_calls_per_second", "shop") == 1
    assert watch("hearth_quota_refusals_concurrent_calls", "shop") == 1


def test_a_call_that_is_refused_for_its_number_takes_no_token() -> None:
    share = Share("shop")
    share.set_quotas(Quotas(concurrent_calls=1, calls_per_second=1, burst=2))
    share.admit(5.0)
    with pytest.raises(QuotaExceeded, match="concurrent_calls"):
        share.admit(5.0)
    share.leave()
    share.admit(5.0)


def test_quotas_that_come_again_keep_the_bucket_and_others_begin_a_new_one() -> None:
    share = Share("shop")
    share.set_quotas(Quotas(calls_per_second=1, burst=1))
    share.admit(5.0)
    share.set_quotas(Quotas(calls_per_second=1, burst=1, memory_mib=64))
    with pytest.raises(QuotaExceeded):
        share.admit(5.0)
    share.set_quotas(Quotas(calls_per_second=1, burst=2))
    share.admit(5.0)


def test_an_app_has_the_quotas_of_the_node_where_it_has_none_and_zero_lifts_them() -> None:
    shares = Shares(Quotas(memory_mib=512, calls_per_second=10, burst=0), Metrics())
    assert shares.of(REF).quotas == Quotas(memory_mib=512, calls_per_second=10)
    own = Quotas(memory_mib=0, concurrent_calls=3)
    assert shares.in_force(own) == Quotas(concurrent_calls=3, calls_per_second=10)


def test_a_share_is_one_for_all_who_hold_it_and_goes_with_the_last() -> None:
    shares = Shares(Quotas(), Metrics())
    share = shares.of(REF)
    assert shares.of(REF) is share
    del share
    gc.collect()
    assert repr(shares) == "<Shares apps=0>"


async def test_a_stopping_node_ends_the_wait_of_accepted_calls() -> None:
    shares = Shares(Quotas(concurrent_calls=1), Metrics())
    share = shares.of(REF)
    await share.deliver(AMOUNT)
    waits = asyncio.ensure_future(share.deliver(AMOUNT))
    await asyncio.sleep(0)
    shares.fail_all(ServerBusy())
    with pytest.raises(ServerBusy):
        await waits


async def test_accepted_calls_are_let_in_in_order_of_arrival() -> None:
    share = Share("shop")
    share.set_quotas(Quotas(concurrent_calls=1, memory_mib=1000))
    await share.deliver(AMOUNT)
    order: list[int] = []

    async def run(number: int, memory: int) -> None:
        await share.deliver(Amount(memory, 0))
        order.append(number)
        share.delivered(Amount(memory, 0))

    waits = [asyncio.ensure_future(run(number, memory)) for number, memory in enumerate([900, 1, 500])]
    await asyncio.sleep(0)
    share.delivered(AMOUNT)
    await asyncio.gather(*waits)
    assert order == [0, 1, 2]


async def test_accepted_calls_leave_a_fifth_to_sync_ones() -> None:
    share = Share("shop")
    share.set_quotas(Quotas(concurrent_calls=10))
    assert [share.deliver_nowait(AMOUNT) for _ in range(9)] == [True] * 8 + [False]
    share.admit(1.0)
    share.admit(1.0)
    with pytest.raises(QuotaExceeded):
        share.admit(1.0)


async def test_an_accepted_call_that_exceeds_the_memory_quota_alone_is_let_in_alone() -> None:
    share = Share("shop")
    share.set_quotas(Quotas(memory_mib=64))
    assert share.deliver_nowait(AMOUNT)
    assert not share.deliver_nowait(Amount(1, 0))
    share.delivered(AMOUNT)
    assert share.deliver_nowait(Amount(1, 0))


class DeliveryMachine(RuleBasedStateMachine):
    """Accepted calls that wait, give up and end, in any order between two iterations of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.share = Share("shop")
        self.quotas = Quotas(concurrent_calls=3, memory_mib=1000)
        self.share.set_quotas(self.quotas)
        self.line: list[tuple[int, int]] = []  # who waits, and for how much
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.running: list[int] = []
        self.numbers = iter(range(10**6))

    @rule(memory=st.integers(1, 1200))
    def ask(self, memory: int) -> None:
        number = next(self.numbers)
        self.tasks[number] = self.loop.start(self._run(number, memory))

    async def _run(self, number: int, memory: int) -> None:
        self.line.append((number, memory))
        try:
            await self.share.deliver(Amount(memory, 0))
        finally:
            self.line.remove((number, memory))
        self.running.append(memory)

    @precondition(lambda self: self.line)
    @rule(at=st.integers(0, 20))
    def give_up(self, at: int) -> None:
        self.tasks[self.line[at % len(self.line)][0]].cancel()

    @precondition(lambda self: self.running)
    @rule(at=st.integers(0, 20))
    def end(self, at: int) -> None:
        self.share.delivered(Amount(self.running.pop(at % len(self.running)), 0))

    @precondition(lambda self: self.running and self.line)
    @rule(running=st.integers(0, 20), line=st.integers(0, 20))
    def end_and_give_up_in_one_tick(self, running: int, line: int) -> None:
        self.end(running)
        self.give_up(line)

    @rule()
    def tick(self) -> None:
        self.loop.tick()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        assert self.share.running == len(self.running)
        if self.line:
            assert self.running, "somebody waits although nothing runs"
            _, memory = self.line[0]
            assert len(self.running) >= 3 or memory + sum(self.running) > 1000, "the first waits for what is free"

    @invariant()
    def within_the_quotas(self) -> None:
        assert len(self.running) <= 3
        assert sum(self.running) <= 1000 or len(self.running) == 1

    def teardown(self) -> None:
        try:
            while self.line or self.running:
                self.settle()
                while self.running:
                    self.end(0)
                self.loop.settle()
            assert self.share.running == 0
        finally:
            self.loop.close()


DeliveryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDelivery: Any = DeliveryMachine.TestCase
