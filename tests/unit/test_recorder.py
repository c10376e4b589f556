"""The recorder, with a store that does as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.support.clock import FakeClock

from hearth.access.base import DataAccess, EndedCall
from hearth.agent import recorder
from hearth.agent.recorder import Recorder
from hearth.models.call import Call
from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.telemetry import metrics


class Store:
    """Stores what it is given, unless a trouble has been set."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.tries = 0
        self.trouble: Callable[[list[str]], Any] = lambda _ids: None

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


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def recorder_of(store: Store, clock: FakeClock, **options: float) -> Recorder:
    return Recorder(cast(DataAccess, store), clock=clock, **options)


async def test_a_store_that_was_gone_gets_everything_once_when_it_is_back(store: Store, clock: FakeClock) -> None:
    store.trouble = gone
    records = recorder_of(store, clock)
    # nobody waits for a store that is gone, whether it showed that before or only now
    assert await asyncio.gather(records.record(ended("1")), records.record(ended("2"))) == [False, False]
    assert await records.record(ended("3")) is False
    store.trouble = lambda _ids: None
    last = records.add(ended("4"))
    clock.advance(1)
    assert last is not None
    assert await last is True
    await records.close()
    assert (store.stored, records.dropped) == (["1", "2", "3", "4"], 0)


async def test_what_the_store_never_took_is_counted(store: Store, clock: FakeClock) -> None:
    store.trouble = gone
    records = recorder_of(store, clock, retry_s=5)
    lost = records.add(ended("1"))
    assert lost is not None
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
    waiting, lost = metrics.gauge("hearth_records_waiting"), metrics.counter("hearth_records_lost")
    before = (waiting.get(), lost.get())
    store.trouble = gone
    records = recorder_of(store, clock, retry_s=0)
    first, second = records.add(ended("1")), records.add(ended("2"))
    assert waiting.get() == before[0] + 2
    assert first is not None
    assert second is not None
    assert await asyncio.gather(first, second) == [False, False]
    await records.close()
    await asyncio.sleep(0)
    assert (waiting.get(), lost.get()) == (before[0], before[1] + 2)


async def test_what_waits_is_bounded_in_calls_and_in_bytes(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_MAX_WAITING", 3)
    monkeypatch.setattr(recorder, "_MAX_WAITING_BYTES", 10)
    open_again = asyncio.Event()
    store.trouble = lambda _ids: open_again.wait()
    records = recorder_of(store, clock)
    assert records.add(ended("1", b"x" * 10)) is not None
    assert records.add(ended("2")) is None  # ten bytes wait
    open_again.set()
    await settled(lambda: store.stored == ["1"])
    await settled(lambda: records._waiting_bytes == 0)
    open_again.clear()
    kept = [records.add(ended(str(n))) for n in range(5)]
    assert [one is not None for one in kept] == [True, True, True, False, False]
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
    records.add(ended("1"))
    await settled(lambda: clock.pending == 1)
    closing = asyncio.ensure_future(records.close())
    await asyncio.sleep(0)
    clock.advance(1)
    await closing
    assert records.dropped == 1
