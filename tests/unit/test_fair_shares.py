"""Apps that compete for the memory of a node: nobody starves, shares meet weights, quotas hold."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.agent import bench, settle
from tests.support.steps import SteppedLoop
from tests.support.virtual_time import run

from hearth.agent.call import ActiveCall
from hearth.agent.resources import Crowd, Reservation, ResourceTracker
from hearth.agent.shares import Share
from hearth.models.errors import QuotaExceeded
from hearth.models.function import NOTHING, Amount, FunctionSpec
from hearth.models.quotas import Quotas

TOTAL = Amount(1000, 500)


def app(name: str, **quotas: int) -> Share:
    share = Share(name)
    share.set_quotas(Quotas(**quotas))
    return share


class Impatient(ResourceTracker):
    """Few bypasses, so that short runs reach the limit."""

    max_bypasses = 3


@dataclasses.dataclass(eq=False)
class Request:
    share: Share
    memory_mib: int
    is_sync: bool
    limit: int = 0
    bypassed: int = 0
    gave_up: bool = False
    task: asyncio.Task[None] | None = None
    reservation: Reservation | None = None


class SharesMachine(RuleBasedStateMachine):
    """Requests of apps with weights, and of one with a quota, in any order between two iterations of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.tracker = Impatient(TOTAL)
        self.apps = [app("a"), app("b", weight=2), app("c", weight=5)]
        self.limited = app("d", memory_mib=200)
        self.line: list[Request] = []
        self.holders: list[Request] = []

    @rule(number=st.integers(0, 3), memory=st.integers(1, 100) | st.integers(300, 800), is_sync=st.booleans())
    def ask(self, number: int, memory: int, is_sync: bool) -> None:
        share = [*self.apps, self.limited][number]
        if share is self.limited:
            memory = min(memory, 200)
        request = Request(share, memory, is_sync)
        request.task = self.loop.start(self._hold(request))
        self.loop.settle()

    async def _hold(self, request: Request) -> None:
        older = [one for one in self.line if one.is_sync == request.is_sync and one.share is not self.limited]
        request.limit = (len(older) + 1) * (Impatient.max_bypasses + 1)
        self.line.append(request)
        try:
            amount = Amount(request.memory_mib, 0)
            request.reservation = await self.tracker.reserve(amount, request.share, is_sync=request.is_sync)
        finally:
            place = self.line.index(request)
            self.line.remove(request)
        self.holders.append(request)
        if request.share is not self.limited:
            for other in self.line[:place]:
                if other.is_sync == request.is_sync and not other.gave_up and other.share is not self.limited:
                    other.bypassed += 1
                    assert other.bypassed <= other.limit, "overtaken too often"

    @precondition(lambda self: self.line)
    @rule(at=st.integers(0, 20))
    def give_up(self, at: int) -> None:
        request = self.line[at % len(self.line)]
        assert request.task is not None
        request.gave_up = True
        request.task.cancel()

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 20))
    def give_back(self, at: int) -> None:
        request = self.holders.pop(at % len(self.holders))
        assert request.reservation is not None
        request.reservation.release()

    @precondition(lambda self: self.holders and self.line)
    @rule(holder=st.integers(0, 20), waiter=st.integers(0, 20))
    def give_back_and_give_up_in_one_tick(self, holder: int, waiter: int) -> None:
        self.give_back(holder)
        self.give_up(waiter)

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        for share in (*self.apps, self.limited):
            held = sum(one.memory_mib for one in self.holders if one.share is share)
            assert share.used == Amount(held, 0)
        assert self.tracker.waiting == len(self.line)
        shortage = self.tracker.shortage()
        assert shortage is None or shortage.least != NOTHING, "the next one waits for what is free"

    @invariant()
    def within_the_node_and_the_quota(self) -> None:
        assert self.tracker.used.fits(TOTAL)
        assert self.limited.used.memory_mib <= 200

    def teardown(self) -> None:
        """With finite holds everybody is served; at the end all is free."""
        try:
            self.settle()
            for _ in range(len(self.line) + 1):
                while self.holders:
                    self.give_back(0)
                    self.loop.settle()
            assert not self.line, "somebody starved"
            assert self.tracker.used == NOTHING
        finally:
            self.loop.close()


SharesMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSharesMachine: Any = SharesMachine.TestCase


@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**32))
def test_shares_meet_the_weights_whoever_was_first(seed: int) -> None:
    asyncio.run(_converge(random.Random(seed)))


async def _converge(chance: random.Random) -> None:
    tracker = ResourceTracker(TOTAL)
    apps = [app("a"), app("b"), app("c", weight=2)]
    held: list[Reservation] = []
    waiting: dict[Share, list[asyncio.Future[Reservation]]] = {share: [] for share in apps}

    def demand(share: Share) -> None:
        waiting[share].append(asyncio.ensure_future(tracker.reserve(Amount(10, 0), share, is_sync=True)))

    async def look() -> None:
        await asyncio.sleep(0)
        for share, futures in waiting.items():
            for future in [future for future in futures if future.done()]:
                futures.remove(future)
                held.append(future.result())
                demand(share)  # there is always more to do
        await asyncio.sleep(0)

    for _ in range(150):
        demand(apps[0])
        await look()
    assert apps[0].used == Amount(1000, 0), "an app alone uses everything"
    for share in apps[1:]:
        for _ in range(5):
            demand(share)
    for _ in range(400):
        held.pop(chance.randrange(len(held))).release()
        await look()
    used = [share.used.memory_mib for share in apps]
    assert sum(used) == 1000
    assert used == [pytest.approx(expected, abs=60) for expected in (250, 250, 500)]
    for futures in waiting.values():
        for future in futures:
            future.cancel()
    await asyncio.sleep(0)


async def test_an_app_above_its_share_is_overtaken_a_few_times_and_then_served() -> None:
    tracker = Impatient(TOTAL)
    above, below = app("above"), app("below")
    await tracker.reserve(Amount(600, 0), above, is_sync=True)
    held = [await tracker.reserve(Amount(100, 0), below, is_sync=True) for _ in range(4)]
    waits = asyncio.ensure_future(tracker.reserve(Amount(100, 0), above, is_sync=True))
    await asyncio.sleep(0)
    overtakings = 0
    while True:
        later = asyncio.ensure_future(tracker.reserve(Amount(100, 0), below, is_sync=True))
        await asyncio.sleep(0)
        held.pop().release()
        await asyncio.sleep(0)
        if waits.done():
            break
        held.append(await later)
        overtakings += 1
    assert overtakings == Impatient.max_bypasses
    later.cancel()


async def test_an_app_at_its_quota_waits_and_nobody_waits_behind_it() -> None:
    tracker = ResourceTracker(TOTAL)
    limited, other = app("limited", memory_mib=200), app("other")
    first = await tracker.reserve(Amount(150, 0), limited, is_sync=True)
    second = asyncio.ensure_future(tracker.reserve(Amount(100, 0), limited, is_sync=True, key=b"k"))
    await asyncio.sleep(0)
    assert tracker.shortage() is None, "nothing of the node is lacking"
    assert tracker.crowds() == [Crowd(limited, 50, b"k")]
    assert tracker.fits(Amount(50, 0), limited, is_sync=True) == 1
    assert tracker.fits(Amount(50, 0), other, is_sync=True) == 17
    assert tracker.reserve_nowait(Amount(800, 0), other, is_sync=True) is not None
    first.release()
    assert (await second).returned.to_sync == Amount(100, 0)


async def test_a_lifted_quota_lets_those_in_who_wait_for_it() -> None:
    tracker = ResourceTracker(TOTAL)
    limited = Share("limited", changed=tracker.serve)
    limited.set_quotas(Quotas(memory_mib=100))
    held = await tracker.reserve(Amount(100, 0), limited, is_sync=True)
    waits = asyncio.ensure_future(tracker.reserve(Amount(100, 0), limited, is_sync=True))
    await asyncio.sleep(0)
    limited.set_quotas(Quotas(memory_mib=200))
    (await waits).release()
    held.release()


async def test_what_exceeds_the_quota_of_its_app_alone_is_refused_at_once() -> None:
    with pytest.raises(QuotaExceeded, match=r"quota memory_mib \(64\)") as refused:
        await ResourceTracker(TOTAL).reserve(Amount(65, 0), app("small", memory_mib=64), is_sync=True)
    assert refused.value.headers == {}


# -- through the agent ----------------------------------------------------------------------------------------------


def of_app(made: Any, name: str, **fields: Any) -> FunctionSpec:
    """A function of an app of its own; all others of the bench are of the app a."""
    spec: FunctionSpec = made.function(f"/{name}", timeout=60, **fields)
    return FunctionSpec(
        ref=type(spec.ref)(id=f"{name}/f", app_id=name, app_name=name, name="/f"),
        image=spec.image,
        contract=spec.contract,
        amount=spec.amount,
        timeout_s=spec.timeout_s,
        idle_timeout_s=spec.idle_timeout_s,
        is_sync=spec.is_sync,
        environment=spec.environment,
        container_labels=spec.container_labels,
    )


def test_an_app_within_its_share_is_served_while_another_keeps_all_containers_busy() -> None:
    """The containers of the greedy app are never idle: each has a call that waits for it."""

    async def scenario() -> None:
        async with bench(Amount(512, 0)) as made:
            greedy, modest = of_app(made, "greedy", memory=128), of_app(made, "modest", memory=128)
            backlog = [made.start(greedy, sleep=1) for _ in range(60)]
            while made.agent.pool.resources.used.memory_mib < 512:
                await asyncio.sleep(0.1)
            began = made.clock.monotonic()
            assert await made.ask(modest, echo="served") == "served"
            assert made.clock.monotonic() - began < 5
            await asyncio.gather(*backlog)

    run(scenario())


def test_apps_that_use_the_same_do_not_end_containers_of_each_other() -> None:
    async def scenario() -> None:
        async with bench(Amount(256, 0)) as made:
            one, two = of_app(made, "one", memory=128), of_app(made, "two", memory=128)
            calls = [made.start(spec, sleep=0.2) for _ in range(40) for spec in (one, two)]
            await asyncio.gather(*calls)
            assert made.driver.counts.prepared <= 6

    run(scenario())


def test_another_function_of_an_app_at_its_memory_quota_gives_way_when_it_is_idle() -> None:
    async def scenario() -> None:
        async with bench(Amount(1000, 0), quotas=Quotas(memory_mib=128)) as made:
            one, two = made.function("/one", memory=128), made.function("/two", memory=128)
            assert await made.ask(one, echo="1") == "1"
            assert await made.ask(two, echo="2") == "2"
            assert made.agent.pool.shares.of(one.ref).used.memory_mib <= 128

    run(scenario())


def test_calls_of_one_app_that_wait_are_bounded_and_those_of_others_are_not_kept_out() -> None:
    async def scenario() -> None:
        async with bench(Amount(256, 0), quotas=Quotas(waiting_calls=3)) as made:
            function, other = made.function(memory=128, timeout=60), of_app(made, "other", memory=128)
            served = made.start(function, sleep=1)
            await asyncio.sleep(0.1)
            calls = [made.start(function, sleep=1) for _ in range(6)]
            later = made.start(other, echo="served")
            done = await asyncio.gather(*calls, return_exceptions=True)
            refused = [one for one in done if isinstance(one, QuotaExceeded)]
            assert [str(one) for one in refused] == ["App a exceeds its quota waiting_calls (3)"] * 3
            assert await later == "served"
            await served
            assert await made.ask(function) == "", "who has waited is not counted any more"

    run(scenario())


def test_a_call_that_waits_in_vain_for_the_memory_quota_of_its_app_is_told_so() -> None:
    async def scenario() -> None:
        async with bench(Amount(1000, 0), quotas=Quotas(memory_mib=128)) as made:
            one, two = made.function("/one", memory=128, timeout=60), made.function("/two", memory=128, timeout=1)
            busy = made.start(one, sleep=30)
            await settle()
            call: ActiveCall = made.call(two)
            with pytest.raises(QuotaExceeded, match=r"quota memory_mib \(128\)") as refused:
                await made.agent.submit(call)
            assert refused.value.headers == {"Retry-After": "1"}
            assert made.statuses() == [], "a refused call leaves no record"
            await busy

    run(scenario())
