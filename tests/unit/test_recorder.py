"""The recorder, with a store that does as a test says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.support.clock import FakeClock
from tests.support.scrape import Watch
from tests.support.virtual_time import VirtualClock, run

from hearth.access.base import CallRecords, EndedCall, Submit
from hearth.agent import recorder
from hearth.agent.recorder import Recorder
from hearth.models.call import Call
from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.telemetry.metrics import Metrics


class Store:
    """Stores what it is given, unless a trouble has been set.

    Args:
        takes: Batches are handed over to it, and it calls back.
    """

    def __init__(self, *, takes: bool = False) -> None:
        self.stored: list[str] = []
        self.tries = 0
        self.trouble: Callable[[list[str]], Any] = lambda _ids: None
        self.submit: Submit | None = self._submit if takes else None
        self._tasks: set[asyncio.Task[None]] = set()

    def _submit(self, ended: list[EndedCall], done: Callable[[Exception | None], object]) -> bool:
        task = asyncio.ensure_future(self.finish_many(ended))
        self._tasks.add(task)
        task.add_done_callback(lambda task: done(cast(Exception | None, task.exception())))
        return True

    async def finish_many(self, ended: list[EndedCall]) -> None:
        self.tries += 1
        ids = [one.call.id for one in ended]
        waiting = self.trouble(ids)
        if waiting is not None:
            await waiting
        self.stored += ids


def ended(call_id: str, log: bytes = b"") -> EndedCall:
    return EndedCall(Call(id=call_id, app_name="app", path="/"), log)


def gone(_ids: list[str]) -> None:
    raise StoreUnavailable("gone")


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


@pytest.fixture(params=[False, True], ids=["waited for", "handed over"])
def store(request: pytest.FixtureRequest) -> Store:
    return Store(takes=request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def recorder_of(store: Store, clock: FakeClock, metrics: Metrics | None = None, **options: Any) -> Recorder:
    return Recorder(cast(CallRecords, store), metrics or Metrics(), clock=clock, **options)


async def test_a_store_that_was_gone_gets_everything_once_when_it_is_back(store: Store, clock: FakeClock) -> None:
    store.trouble = gone
    records = recorder_of(store, clock)
    # nobody waits for a store that is gone, whether it showed that before or only now
    assert await asyncio.gather(records.record(ended("1")), records.record(ended("2"))) == [False, False]
    assert await records.record(ended("3")) is False
    store.trouble = lambda _ids: None
    last = records.record(ended("4"), is_awaited=False)
    while not last.done():
        await settled(lambda: clock.pending > 1 or last.done())
        clock.advance(1)
    assert await last is True
    await records.close()
    assert (store.stored, records.dropped) == (["1", "2", "3", "4"], 0)


async def test_what_the_store_never_took_is_counted(store: Store, clock: FakeClock) -> None:
    store.trouble = gone
    records = recorder_of(store, clock, retry_s=5)
    lost = records.record(ended("1"), is_awaited=False)
    while not lost.done():
        await settled(lambda: clock.pending > 0 or lost.done())
        clock.advance(1)
    assert (lost.result(), records.dropped, store.stored) == (False, 1, [])
    assert store.tries > 2


async def test_one_call_that_the_store_refuses_takes_no_other_with_it(store: Store, clock: FakeClock) -> None:
    def refuse(ids: list[str]) -> None:
        if "bad" in ids:
            raise StoreRefused("no")

    store.trouble = refuse
    records = recorder_of(store, clock)
    answers = await asyncio.gather(*[records.record(ended(name)) for name in ("0", "a", "bad", "b", "c", "d")])
    assert answers == [True, True, False, True, True, True]
    assert (sorted(store.stored), records.dropped) == (["0", "a", "b", "c", "d"], 1)


async def test_what_waits_and_what_is_lost_are_metrics(store: Store, clock: FakeClock) -> None:
    watch = Watch(Metrics())
    store.trouble = gone
    records = recorder_of(store, clock, watch.metrics, retry_s=0)
    first, second = records.record(ended("1"), is_awaited=False), records.record(ended("2"), is_awaited=False)
    assert watch("hearth_records_waiting") == 2
    assert await asyncio.gather(first, second) == [False, False]
    await records.close()
    await asyncio.sleep(0)
    assert (watch("hearth_records_waiting"), watch("hearth_records_lost")) == (0, 2)


async def test_what_waits_is_bounded_in_calls_and_in_bytes(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING", 3)
    monkeypatch.setattr(recorder, "MAX_WAITING_BYTES", 10)
    open_again = asyncio.Event()
    store.trouble = lambda _ids: open_again.wait()
    records = recorder_of(store, clock)
    assert not records.record(ended("1", b"x" * 10), is_awaited=False).done()
    assert not await records.record(ended("2"))  # ten bytes wait
    open_again.set()
    await settled(lambda: store.stored == ["1"])
    await settled(lambda: "bytes=0" in repr(records))
    open_again.clear()
    kept = [records.record(ended(str(n)), is_awaited=False) for n in range(5)]
    assert [one.done() for one in kept] == [False, False, False, True, True]
    open_again.set()
    await records.close()
    assert records.dropped == 3


async def test_a_store_that_hangs_keeps_no_call_longer_than_the_limit(store: Store, clock: FakeClock) -> None:
    released = asyncio.Event()
    store.trouble = lambda _ids: released.wait()
    records = recorder_of(store, clock, limit_s=10)
    answer = asyncio.ensure_future(records.record(ended("1")))
    await settled(lambda: clock.pending == 1)
    clock.advance(9.9)
    await asyncio.sleep(0)
    assert not answer.done()
    clock.advance(0.2)
    assert await answer is False
    released.set()
    await records.close()
    assert store.stored == ["1"]


async def test_the_end_of_the_node_does_not_wait_for_a_store_that_is_gone(store: Store, clock: FakeClock) -> None:
    store.trouble = gone
    records = recorder_of(store, clock)
    records.record(ended("1"), is_awaited=False)
    await settled(lambda: clock.pending == 1)
    closing = asyncio.ensure_future(records.close())
    await asyncio.sleep(0)
    clock.advance(1)
    await closing
    assert records.dropped == 1


async def test_a_record_that_no_batch_can_hold_is_lost_alone(store: Store, clock: FakeClock) -> None:
    """It fails before anything is handed over."""
    submit = store.submit

    def picky(given: list[EndedCall], done: Callable[[Exception | None], object]) -> bool:
        if any(one.call.id == "odd" for one in given):
            raise ValueError("odd")
        return submit is not None and submit(given, done)

    def refuse(ids: list[str]) -> None:
        if "odd" in ids:
            raise ValueError("odd")

    store.submit, store.trouble = picky, refuse
    records = recorder_of(store, clock)
    assert await asyncio.gather(*[records.record(ended(name)) for name in ("0", "odd", "1")]) == [True, False, True]
    assert await records.record(ended("2")) is True
    await records.close()
    assert (sorted(store.stored), records.dropped) == (["0", "1", "2"], 1)


# -- when a write begins, in virtual time ------------------------------------------------------------------------------

_COMMIT_S = 0.0003
_CALL_S = 0.008


class World:
    """Callers who work, then have their call recorded, and so on, with a store that takes a while.

    Attributes:
        batches: The ids of the calls of each write, in order.
        waits: Seconds that each record took, in order of their ends.
    """

    def __init__(self, commit_s: float = _COMMIT_S, *, tells: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.waits: list[float] = []
        self.callers = 0
        self._commit_s = commit_s
        self.recorder = Recorder(
            cast(CallRecords, self),
            Metrics(),
            clock=VirtualClock(),
            running=(lambda: self.callers) if tells else lambda: 0,
        )

    def submit(self, given: list[EndedCall], done: Callable[[Exception | None], object]) -> bool:
        self.batches.append([one.call.id for one in given])
        asyncio.get_running_loop().call_later(self._commit_s, done, None)
        return True

    async def call(self, name: str, call_s: float) -> None:
        """One call."""
        self.callers += 1
        await asyncio.sleep(call_s)
        begun = asyncio.get_running_loop().time()
        assert await self.recorder.record(ended(name))
        self.waits.append(asyncio.get_running_loop().time() - begun)
        self.callers -= 1

    async def caller(self, name: str, calls: int, call_s: float) -> None:
        """One call after another."""
        for number in range(calls):
            await self.call(f"{name}.{number}", call_s)

    async def crowd(self, callers: int, calls: int) -> None:
        """Callers that began at different moments."""
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(self.caller(f"{number}", calls, _CALL_S * (1 + number / callers)))


def played(scenario: Callable[[World], Any], **options: Any) -> World:
    """Run a scenario in a world of its own."""

    async def whole() -> World:
        world = World(**options)
        await scenario(world)
        return world

    return run(whole())


def test_a_caller_on_its_own_never_waits_for_company() -> None:
    world = played(lambda world: world.caller("a", 50, 0.0001))
    assert max(world.waits) == pytest.approx(_COMMIT_S)


def test_few_callers_do_not_wait_for_each_other() -> None:
    world = played(lambda world: world.crowd(3, 50))
    assert max(world.waits) < 3 * _COMMIT_S


@pytest.mark.parametrize(("callers", "hold_s"), [(40, 0.001), (80, 0.002), (120, 0.003), (400, 0.003)])
def test_many_callers_share_fewer_commits_and_wait_a_moment_at_most(callers: int, hold_s: float) -> None:
    held, eager = [played(lambda world: world.crowd(callers, 20), tells=tells) for tells in (True, False)]
    for world in (held, eager):
        assert sorted(itertools.chain(*world.batches)) == sorted(
            f"{caller}.{number}" for caller in range(callers) for number in range(20)
        )
    assert 3 * len(held.batches) < 2 * len(eager.batches)
    assert max(held.waits) < hold_s + 2 * _COMMIT_S


def test_a_quarter_of_the_running_calls_is_not_held_any_longer() -> None:
    async def scenario(world: World) -> None:
        world.callers = 8
        first = world.recorder.record(ended("first"))
        await first
        second = world.recorder.record(ended("second"))
        await asyncio.sleep(0.0001)
        assert world.batches == [["first"]]
        await asyncio.gather(second, world.recorder.record(ended("third")))
        assert asyncio.get_running_loop().time() == pytest.approx(2 * _COMMIT_S + 0.0001)

    assert played(scenario).batches == [["first"], ["second", "third"]]


def test_a_write_is_not_held_after_a_pause_or_a_slow_write() -> None:
    async def after_a_pause(world: World) -> None:
        world.callers = 100
        await world.caller("busy", 1, 0)
        await asyncio.sleep(0.01)
        await world.caller("after", 1, 0)

    assert played(after_a_pause).waits == [pytest.approx(_COMMIT_S)] * 2

    async def after_a_slow_one(world: World) -> None:
        world.callers = 100
        first = world.recorder.record(ended("first"))
        await asyncio.sleep(0)
        second = world.recorder.record(ended("second"))
        await first
        begun = asyncio.get_running_loop().time()
        await second
        world.waits.append(asyncio.get_running_loop().time() - begun)

    assert played(after_a_slow_one, commit_s=0.05).waits == [pytest.approx(0.05)]


def test_closing_writes_what_is_held_at_once() -> None:
    async def scenario(world: World) -> None:
        world.callers = 100
        await world.recorder.record(ended("first"))
        held = [world.recorder.record(ended(f"{number}")) for number in range(20)]
        await asyncio.sleep(0)
        assert not held[0].done()
        await world.recorder.close()
        assert asyncio.get_running_loop().time() == pytest.approx(2 * _COMMIT_S)
        assert await asyncio.gather(*held) == [True] * 20

    assert played(scenario).batches == [["first"], [f"{number}" for number in range(20)]]


def test_no_write_exceeds_its_size() -> None:
    async def scenario(world: World) -> None:
        await asyncio.gather(*[world.recorder.record(ended(f"{number:04}")) for number in range(1200)])

    world = played(scenario)
    assert [len(batch) for batch in world.batches] == [500, 500, 200]
    assert [*itertools.chain(*world.batches)] == [f"{number:04}" for number in range(1200)]
