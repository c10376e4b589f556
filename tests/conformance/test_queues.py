"""What every queue keeps its word on (storage specification 7.5)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.clock import FakeClock
from tests.support.queue_time import BoltAtHand, QueueAtHand, queue_at_hand

from hearth.models.call import Call
from hearth.models.errors import StartUpError
from hearth.models.message import encode_call
from hearth.queues.base import MAX_RESERVED_BYTES, Backlog, Queue, Reserved
from hearth.queues.open import open_queue

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
DURABLE = ["bolt", "redis", *(["named redis"] if os.environ.get("REDIS_URL") else [])]


@pytest.fixture(params=["memory", *DURABLE])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> QueueAtHand:
    return queue_at_hand(request.param, request, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> QueueAtHand:
    return queue_at_hand(request.param, request, tmp_path)


@contextlib.asynccontextmanager
async def opened(place: QueueAtHand) -> AsyncIterator[Queue]:
    queue = await place.open()
    try:
        yield queue
    finally:
        await queue.close()


@pytest.fixture
async def queue(place: QueueAtHand) -> AsyncIterator[Queue]:
    async with opened(place) as queue:
        yield queue


def call(name: str, priority: int = 0, delay: int = 0, payload: bytes = b"") -> Call:
    return Call(id=name, app_name="a", path="/p", priority=priority, delay=delay, payload=payload, created_at=NOW)


async def names(queue: Queue, limit: int = 100) -> list[str]:
    return [reserved.call.id for reserved in await queue.reserve(limit)]


async def test_a_call_comes_back_whole(queue: Queue) -> None:
    given = Call(
        id="x",
        app_name="a",
        path="/p/q",
        status="queued",
        image="i:1",
        type="async",
        format="http",
        payload=b"\xff\x00binary\r\n",
        url="http://h/r/a/p?x=\xfc",
        method="POST",
        priority=1,
        timeout=7,
        idle_timeout=8,
        memory=64,
        cpu_milli=250,
        config={"K": "ü=\n"},
        headers={"X": ["1", "\xe9"]},
        created_at=NOW,
    )
    await queue.push([given])
    (reserved,) = await queue.reserve(1)
    assert reserved.call == given
    assert reserved.deliveries == 1


async def test_whatever_a_message_says_of_its_type_its_call_is_async(queue: Queue) -> None:
    """Else its end would be stored as that of a sync call, whatever another node has stored before."""
    await queue.push([Call(id=kind or "none", app_name="a", path="/p", type=kind) for kind in ("sync", "")])
    assert [reserved.call.type for reserved in await queue.reserve(2)] == ["async", "async"]


async def test_order_is_by_priority_then_by_arrival(queue: Queue) -> None:
    await queue.push([call("a"), call("b", 2)])
    await queue.push([call("c", 1), call("d", 2), call("e")])
    assert await names(queue, 2) == ["b", "d"]
    assert await names(queue) == ["c", "a", "e"]
    assert await names(queue) == []


def of(app: str, name: str, priority: int = 0, delay: int = 0, payload: bytes = b"") -> Call:
    return msgspec.structs.replace(call(name, priority, delay, payload), app_name=app)


async def test_apps_take_turns(queue: Queue) -> None:
    await queue.push([of("a", f"a{n}") for n in range(6)])
    await queue.push([of("b", f"b{n}", priority=n) for n in range(3)])
    await queue.push([of("c", "c0")])
    assert await names(queue) == ["a0", "b2", "c0", "a1", "b1", "a2", "b0", "a3", "a4", "a5"]


async def test_an_app_has_as_many_turns_in_a_round_as_its_weight_says(queue: Queue) -> None:
    await queue.weigh("a", 3)
    await queue.push([of("a", f"a{n}") for n in range(8)] + [of("b", f"b{n}") for n in range(4)])
    first = [await names(queue, 1) for _ in range(3)]
    assert [*first, await names(queue, 7)] == [["a0"], ["b0"], ["a1"], ["a2", "b1", "a3", "a4", "a5", "b2", "a6"]]
    await queue.push([of("c", "c0")])
    assert await names(queue, 2) == ["c0", "a7"], "the first call of an app is next, whatever others weigh"
    await queue.weigh("a", 1)
    await queue.push([of("a", f"a{n}") for n in (8, 9)] + [of("b", f"b{n}") for n in (4, 5)])
    assert await names(queue) == ["a8", "b3", "a9", "b4", "b5"]


async def test_a_heavy_app_gains_no_turn_by_emptying_and_coming_again(queue: Queue) -> None:
    await queue.weigh("a", 2)
    await queue.push([of("a", "a0"), of("b", "b0"), of("b", "b1"), of("b", "b2")])
    taken = await names(queue, 2)
    for n in range(1, 6):
        await queue.push([of("a", f"a{n}")])
        taken += await names(queue, 1)
    assert sum(name in taken for name in ("b0", "b1", "b2")) >= 2, taken


async def test_the_weights_of_redis_hold_for_all_nodes(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place = queue_at_hand("redis", request, tmp_path)
    async with opened(place) as one, opened(place) as other:
        await one.weigh("a", 2)
        await other.push([of("b", f"b{n}") for n in range(3)] + [of("a", f"a{n}") for n in range(4)])
        assert await names(other, 6) == ["b0", "a0", "a1", "b1", "a2", "a3"]


async def test_readers_that_leave_out_different_apps_do_not_keep_each_other_awake(queue: Queue) -> None:
    left_out = ({"a", "b"}, {"a", "c"})
    await queue.push([of("a", "a0")])
    for without in left_out:
        await asyncio.wait_for(queue.wait(without), 60)
        assert await queue.reserve(5, without) == []
    async with asyncio.timeout(60):
        while True:  # the news of a message may come to a queue after the message
            waits = [asyncio.ensure_future(queue.wait(without)) for without in left_out]
            done, pending = await asyncio.wait(waits, timeout=0)
            if not done:
                break
            for waiting in pending:
                waiting.cancel()
            for without in left_out:
                assert await queue.reserve(5, without) == []
    await queue.push([of("d", "d0")])
    await asyncio.wait_for(asyncio.gather(*waits), 60)
    assert [one.call.id for one in await queue.reserve(5, {"a"})] == ["d0"]
    await asyncio.wait_for(queue.wait({"b"}), 60)
    assert [one.call.id for one in await queue.reserve(5, {"b"})] == ["a0"]


async def test_the_bytes_of_an_app_are_those_of_its_messages(queue: Queue) -> None:
    async def sizes() -> list[int]:
        return [await queue.bytes_of(app) for app in ("a", "b", "nobody")]

    assert await sizes() == [0, 0, 0]
    await queue.push([of("a", "hidden", delay=9), of("b", "b0")])
    hidden, b, _ = await sizes()
    assert min(hidden, b) > 0
    await queue.push([of("a", "a0", payload=b"x" * 5000)])
    a, *others = await sizes()
    assert others == [b, 0]
    assert a >= hidden + 5000
    await queue.push([of("a", "a0", payload=b"x" * 5000), of("c", "c0")])  # one of them is there already
    taken = {one.call.id: one.lease for one in await queue.reserve(3)}
    assert sorted(taken) == ["a0", "b0", "c0"]
    assert await sizes() == [a, b, 0], "reserved messages are still stored"
    assert await queue.replace(taken["a0"], of("a", "a0", payload=b"x" * 7000), 0)
    assert await sizes() == [a + 2000, b, 0]
    (again,) = await queue.reserve(1)
    await queue.acknowledge([again.lease, again.lease, taken["a0"], taken["b0"]])
    assert await sizes() == [hidden, 0, 0]


async def test_the_bytes_of_apps_survive_a_restart(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([of("a", "a0", payload=b"x" * 100), of("a", "a1")])
        size = await queue.bytes_of("a")
    async with opened(durable) as queue:
        assert await queue.bytes_of("a") == size
        await queue.acknowledge([one.lease for one in await queue.reserve(2)])
        assert await queue.bytes_of("a") == 0


async def test_the_first_call_of_an_app_is_next_whatever_the_backlog_of_another(queue: Queue) -> None:
    await queue.push([of("a", f"a{n}", priority=2) for n in range(20)])
    assert await names(queue, 3) == ["a0", "a1", "a2"]
    await queue.push([of("b", "b0")])
    await queue.push([of("c", "c0")])
    assert await names(queue, 1) == ["b0"]
    assert await names(queue, 4) == ["c0", "a3", "a4", "a5"]


async def test_an_app_gains_no_turn_by_emptying_and_coming_again(queue: Queue) -> None:
    await queue.push([of("a", f"a{n}") for n in range(3)] + [of("b", "b0")])
    assert await names(queue, 2) == ["a0", "b0"]
    taken = []
    for n in range(1, 4):
        await queue.push([of("b", f"b{n}")])
        taken += await names(queue, 1)
    assert taken == ["a1", "b1", "a2"]


async def test_large_calls_take_turns_too(queue: Queue) -> None:
    large = bytes(MAX_RESERVED_BYTES // 2)
    await queue.push([of("a", f"a{n}", payload=large) for n in range(2)])
    await queue.push([of(app, f"{app}0", payload=large) for app in "bc"])
    assert [await names(queue, 10) for _ in range(2)] == [["a0", "b0"], ["c0", "a1"]]


async def test_apps_can_be_left_out_and_are_not_forgotten(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([of("a", f"a{n}") for n in range(3)])
    assert await names(queue, 1) == ["a0"]
    assert [one.call.id for one in await queue.reserve(5, without={"a"})] == []
    await asyncio.wait_for(queue.wait(), 60)  # there are messages for whoever leaves nothing out
    others = asyncio.ensure_future(queue.wait({"a"}))
    await queue.push([of("b", "b0"), of("c", "c0"), of("c", "c1")])
    await asyncio.wait_for(others, 60)
    assert [one.call.id for one in await queue.reserve(2, without={"a"})] == ["b0", "c0"]
    assert await names(queue) == ["a1", "c1", "a2"]


async def test_rounds_without_an_app_leave_its_turn_as_it_is(queue: Queue) -> None:
    await queue.push([of("a", "a0"), of("a", "a1"), of("b", "b0"), of("b", "b1")])
    assert await names(queue, 2) == ["a0", "b0"]
    assert [one.call.id for one in await queue.reserve(1, without={"a"})] == ["b1"]
    await queue.push([of("c", "c0")])
    assert await names(queue, 2) == ["c0", "a1"], "the first app had its turn, the last one had none"


async def test_turns_survive_expiry_release_and_delay(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([of("a", "a0"), of("a", "a1"), of("b", "b0"), of("c", "c0", delay=5)])
    a0, b0, a1 = await queue.reserve(3)
    await queue.release(a1.lease)
    await queue.push([of("a", "a2"), of("d", "d0")])
    await place.advance(5.1)
    assert sorted(await names(queue, 2)) == ["c0", "d0"]  # "a" had its turn
    assert await queue.acknowledge([a0.lease, b0.lease]) == [True, True]
    assert await names(queue) == ["a1", "a2"]
    await place.advance(queue.visibility_s + 1)
    taken = await names(queue)
    assert sorted(taken) == ["a1", "a2", "c0", "d0"]
    assert taken.index("a1") < taken.index("a2") == 3


async def test_turns_go_on_after_a_restart(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([of("a", f"a{n}") for n in range(3)] + [of("b", f"b{n}") for n in range(2)])
    async with opened(durable) as queue:
        assert await names(queue) == ["a0", "b0", "a1", "b1", "a2"]


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abcd"), st.integers(0, 2)),
            st.tuples(st.integers(1, 7), st.sets(st.sampled_from("abcd"), max_size=2)),
        ),
        max_size=40,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["memory", "bolt", "redis"])
def test_any_reservations_keep_order_and_turns(
    kind: str,
    steps: list[tuple[str, int] | tuple[int, set[str]]],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A list of messages, and the apps that had a turn in this round, tell which message may come."""
    place = queue_at_hand(kind, request, tmp_path_factory.mktemp("turns"))
    asyncio.run(_turns_beside_a_list(place, steps))


async def _turns_beside_a_list(place: QueueAtHand, steps: list[tuple[str, int] | tuple[int, set[str]]]) -> None:
    model: list[Call] = []
    had_turn: set[str] = set()
    async with opened(place) as queue:
        for number, (what, more) in enumerate(steps):
            if isinstance(what, str):
                assert isinstance(more, int)
                model.append(of(what, f"{number}", priority=more))
                await queue.push([model[-1]])
                continue
            assert isinstance(more, set)
            taken = await queue.reserve(what, without=more)
            for one in taken:
                app = one.call.app_name
                ready = {kept.app_name for kept in model} - more
                assert app in ready
                if app in had_turn:
                    assert ready <= had_turn  # all others that could be taken had theirs
                    had_turn &= more
                had_turn.add(app)
                first = min((kept for kept in model if kept.app_name == app), key=lambda kept: -kept.priority)
                assert one.call.id == first.id
                model.remove(first)
            if len(taken) < what:
                had_turn &= more  # nobody waits for a turn
        rest = [one.call.id for one in await queue.reserve(1000)]
        assert sorted(rest) == sorted(kept.id for kept in model)


async def test_a_call_that_is_pushed_again_has_one_message(queue: Queue) -> None:
    """Whoever did not hear what came of a push tries again. Guard: the call's id is the message's key."""
    await asyncio.gather(*[queue.push([call("a"), call("b")]) for _ in range(3)])
    await queue.push([call("b", 2), call("a", delay=5), call("c"), call("c")])
    assert await queue.backlog() == Backlog(3, NOW)
    (a,) = await queue.reserve(1)
    await queue.push([call("a")])
    assert (a.call.id, await names(queue)) == ("a", ["b", "c"])
    assert await queue.acknowledge([a.lease]) == [True]
    await queue.push([call("a")])  # by now nobody can tell
    assert await names(queue) == ["a"]


async def test_a_call_that_is_pushed_again_after_a_restart_has_one_message(durable: QueueAtHand) -> None:
    for _ in range(2):
        async with opened(durable) as queue:
            await queue.push([call("a")])
            assert await queue.backlog() == Backlog(1, NOW)


async def test_what_is_not_settled_returns_to_its_old_place(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([call("a"), call("b"), call("c")])
    a, b = await queue.reserve(2)
    assert await queue.acknowledge([b.lease]) == [True]
    await place.advance(queue.visibility_s + 1)
    assert await names(queue) == ["a", "c"]
    assert await queue.acknowledge([a.lease]) == [False]  # somebody else has it now


async def test_a_renewed_lease_lasts(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([call("a")])
    (a,) = await queue.reserve(1)
    for _ in range(3):
        await place.advance(queue.visibility_s * 0.7)
        assert await queue.renew([a.lease]) == [True]
        assert await names(queue) == []
    assert await queue.acknowledge([a.lease]) == [True]
    await place.advance(queue.visibility_s * 2)
    assert await names(queue) == []


async def test_an_earlier_lease_neither_renews_nor_acknowledges(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([call("a")])
    (earlier,) = await queue.reserve(1)
    await place.advance(queue.visibility_s + 1)
    (current,) = await queue.reserve(1)
    assert await queue.renew([earlier.lease]) == [False]
    assert await queue.acknowledge([earlier.lease]) == [False]
    assert await queue.acknowledge([current.lease]) == [True]


async def test_what_is_settled_is_gone_and_cannot_be_settled_again(queue: Queue) -> None:
    await queue.push([call("a")])
    (a,) = await queue.reserve(1)
    assert await queue.acknowledge([a.lease]) == [True]
    assert await queue.acknowledge([a.lease]) == [False]
    assert await queue.renew([a.lease]) == [False]
    assert not await queue.release(a.lease)


async def test_the_message_of_a_call_that_will_not_run_is_deleted_unless_somebody_holds_it(
    queue: Queue, place: QueueAtHand
) -> None:
    await queue.push([call("held"), call("ready"), call("hidden", delay=60), call("other")])
    (held,) = await queue.reserve(1)
    stored = await queue.bytes_of("a")
    found = [await queue.discard(name) for name in ("held", "ready", "hidden", "unknown", "ready")]
    assert found == [False, True, True, False, False]
    assert (await queue.backlog()).length == 1
    assert await queue.bytes_of("a") < stored / 2 + 10
    assert await names(queue) == ["other"]
    await queue.push([call("ready")])  # nothing of it is left
    assert await names(queue) == ["ready"]
    assert await queue.release(held.lease)
    assert await queue.discard("held")
    await place.advance(61)
    assert await names(queue) == ["other", "ready"], "their leases have ended, and the hidden one is not there"


async def test_a_lease_that_is_named_twice_is_settled_once(queue: Queue) -> None:
    await queue.push([call("a")])
    (reserved,) = await queue.reserve(1)
    assert await queue.acknowledge([reserved.lease, reserved.lease]) == [True, False]


async def test_any_number_is_taken_in_order_and_settled_at_once(queue: Queue) -> None:
    names_of_all = [f"{number:04}" for number in range(1101)]  # Redis is told of a thousand with one command
    await queue.push([call(name) for name in names_of_all])
    taken = await queue.reserve(2000)
    assert [one.call.id for one in taken] == names_of_all
    assert await queue.acknowledge([one.lease for one in taken]) == [True] * len(taken)
    assert await queue.backlog() == Backlog(0, None)


async def test_large_calls_come_back_whole_and_few_at_a_time(queue: Queue) -> None:
    payloads = [bytes([number]) * MAX_RESERVED_BYTES for number in range(2)] + [b"\xff" * 100_000]
    await queue.push([call(str(number), payload=payload) for number, payload in enumerate(payloads)])
    taken: list[Reserved] = []
    while len(taken) < len(payloads):
        await asyncio.wait_for(queue.wait(), 10)  # it is not forgotten that there is more
        reserved = await queue.reserve(100)
        assert len(reserved) == 1
        taken += reserved
    assert [one.call.payload == payload for one, payload in zip(taken, payloads, strict=True)] == [True] * 3
    assert await queue.acknowledge([one.lease for one in taken]) == [True] * 3


async def test_what_is_given_back_can_be_had_at_once_or_later(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([call("a"), call("b")])
    a, b = await queue.reserve(2)
    assert await queue.release(a.lease)
    assert await queue.release(b.lease, 5)
    assert await queue.acknowledge([a.lease, b.lease]) == [False, False]  # given back is not held
    assert await queue.renew([a.lease, b.lease]) == [False, False]
    (again,) = await queue.reserve(5)
    assert (again.call.id, again.deliveries) == ("a", 2)
    await place.advance(5.1)
    assert await names(queue) == ["b"]


async def test_another_message_takes_the_place_of_a_leased_one_and_shows_when_its_time_has_come(
    place: QueueAtHand,
) -> None:
    async with opened(place) as queue:
        await queue.push([call("a", payload=b"first"), call("b")])
        (a,) = await queue.reserve(1)
        assert not await queue.replace(a.lease + "0", call("a", payload=b"wrong"), 0)
        assert await queue.replace(a.lease, call("a", payload=b"\xff" * 100_000), 5)
        for outdated in (queue.acknowledge([a.lease]), queue.renew([a.lease])):
            assert await outdated == [False]
        assert not await queue.replace(a.lease, call("a", payload=b"late"), 0)
        assert await names(queue) == ["b"]
        assert (await queue.backlog()).length == 1
        await place.advance(5.1)
        (again,) = await queue.reserve(10)
        assert (again.call.id, again.call.payload) == ("a", b"\xff" * 100_000)
        assert again.lease != a.lease
        assert await queue.replace(again.lease, call("a", payload=b"third"), 0)
        await queue.push([call("c")])
        assert [(one.call.id, one.call.payload) for one in await queue.reserve(1)] == [("a", b"third")], "its old place"


async def test_a_message_that_was_replaced_waits_through_a_restart(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([call("a", payload=b"first")])
        (a,) = await queue.reserve(1)
        assert await queue.replace(a.lease, call("a", payload=b"second"), 20)
    async with opened(durable) as queue:
        assert await names(queue) == []
        await durable.advance(20.1)
        assert [one.call.payload for one in await queue.reserve(10)] == [b"second"]


async def test_a_delayed_call_shows_after_its_delay(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([call("late", delay=10), call("later", delay=10), call("now")])
    assert await names(queue) == ["now"]
    await place.advance(9)
    assert await names(queue) == []
    await place.advance(1.1)
    assert await names(queue) == ["late", "later"]


async def test_concurrent_consumers_never_get_the_same_call(queue: Queue) -> None:
    await queue.push([call(str(n)) for n in range(200)])
    taken = await asyncio.gather(*[names(queue, 3) for _ in range(80)])
    flat = [name for some in taken for name in some]
    assert sorted(flat, key=int) == [str(n) for n in range(200)]


async def test_what_nobody_has_taken_is_counted_and_the_oldest_known(queue: Queue, place: QueueAtHand) -> None:
    def at(name: str, minutes: int, priority: int) -> Call:
        return msgspec.structs.replace(call(name, priority), created_at=NOW + dt.timedelta(minutes=minutes))

    assert await queue.backlog() == Backlog(0, None)
    await queue.push([at("new", 2, 2), at("old", 0, 0), at("older", 1, 1), call("late", delay=900)])
    assert await queue.backlog() == Backlog(4, NOW)
    new, older = await queue.reserve(2)
    assert await queue.backlog() == Backlog(2, NOW)
    (old,) = await queue.reserve(1)
    assert await queue.backlog() == Backlog(1, None)
    assert await queue.acknowledge([new.lease, old.lease, new.lease]) == [True, True, False]
    assert await queue.release(older.lease)
    assert await queue.backlog() == Backlog(2, NOW + dt.timedelta(minutes=1))
    await queue.reserve(1)
    await place.advance(queue.visibility_s + 1)
    assert await names(queue) == ["older"]
    assert await queue.backlog() == Backlog(1, None)


async def test_what_is_kept_is_counted_after_a_restart(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([call("a"), call("b"), call("c")])
        assert await queue.acknowledge([one.lease for one in await queue.reserve(1)]) == [True]
    async with opened(durable) as queue:
        assert await queue.backlog() == Backlog(2, NOW)


async def test_the_images_of_all_kept_calls_are_told(queue: Queue) -> None:
    assert await queue.images() == set()
    kept = [
        Call(id=str(n), app_name="a", path='/"image":"x"', image=f'i"{n}:1', payload=b"x" * size, delay=delay)
        for n, (size, delay) in enumerate([(0, 0), (1 << 10, 0), (100 << 10, 0), (1, 60), *[(1, 0)] * 300])
    ]
    await queue.push(kept)
    [reserved] = await queue.reserve(1)
    assert await queue.images() == {call.image for call in kept}
    await queue.acknowledge([reserved.lease])
    assert await queue.images() == {call.image for call in kept} - {reserved.call.image}


async def test_a_call_whose_image_cannot_be_told_leaves_all_unknown(queue: Queue) -> None:
    await queue.push([Call(id="1", app_name="a", path="/" + "x" * 20_000, image="i:1")])
    assert await queue.images() is None


async def test_who_waits_is_woken_by_a_push_an_expiry_and_a_delay(queue: Queue, place: QueueAtHand) -> None:
    async def woken_with(*, after: float) -> list[str]:
        while True:  # a wake-up says "look", no more
            waiting = asyncio.ensure_future(queue.wait())
            if after:
                await place.advance(after)
            else:
                await queue.push([call("a")])
            await waiting
            if found := await names(queue):
                return found

    assert await names(queue) == []
    assert await woken_with(after=0) == ["a"]
    assert await names(queue) == []
    assert await woken_with(after=queue.visibility_s + 0.1) == ["a"]
    await place.advance(queue.visibility_s + 0.1)
    (a,) = await queue.reserve(1)
    await queue.release(a.lease, 5)
    assert await names(queue) == []
    assert await woken_with(after=5.1) == ["a"]


async def test_who_waits_for_nothing_goes_on_waiting(queue: Queue) -> None:
    waiting = asyncio.ensure_future(queue.wait())
    await waiting
    assert await names(queue) == []
    looks = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                await queue.wait()
                looks += 1
                assert await names(queue) == []
    assert looks < 10


async def test_a_cancelled_reservation_loses_nothing(queue: Queue) -> None:
    await queue.push([call("a")])
    taking = asyncio.ensure_future(queue.reserve(1))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    async with asyncio.timeout(60):
        while not (found := await names(queue)):
            await queue.wait()
    assert found == ["a"]


async def test_what_is_kept_survives_with_leases_and_delays(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([call("leased"), call("a"), call("late", delay=30)])
        (leased,) = await queue.reserve(1)
    await durable.advance(20)
    async with opened(durable) as queue:
        assert await names(queue) == ["a"]
        await durable.advance(10.1)
        assert await names(queue) == ["late"]
        await durable.advance(queue.visibility_s)
        assert await names(queue) == ["leased", "a", "late"]
        assert await queue.acknowledge([leased.lease]) == [False]


async def test_a_step_of_the_wall_clock_ends_no_lease(queue: Queue, place: QueueAtHand) -> None:
    await queue.push([call("a")])
    (a,) = await queue.reserve(1)
    place.clock.set_wall(+3600)
    assert await names(queue) == []
    place.clock.set_wall(-7200)
    await place.advance(queue.visibility_s + 1)
    assert await names(queue) == ["a"]
    assert await queue.acknowledge([a.lease]) == [False]


async def test_a_file_has_one_process(tmp_path: Path) -> None:
    url = f"bolt://{tmp_path}/fn.mq"
    first = await open_queue(url, FakeClock())
    with pytest.raises(StartUpError, match="another process uses it"):
        await open_queue(url, FakeClock())
    await first.close()


async def test_a_file_of_a_version_that_knew_no_ids_goes_on(tmp_path: Path) -> None:
    place = BoltAtHand(FakeClock(), tmp_path)
    async with opened(place) as queue:
        await queue.push([call("a"), call("b")])
    with sqlite3.connect(place.file) as db:
        db.executescript("DROP INDEX messages_call; ALTER TABLE messages DROP COLUMN call_id")
    db.close()
    async with opened(place) as queue:
        await queue.push([call("c"), call("c")])
        assert await names(queue) == ["a", "b", "c"]


async def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "fn.mq"
    old = bytes(16) + (0xED0CDAED).to_bytes(4, "little") + bytes(4096)
    file.write_bytes(old)
    with pytest.raises(StartUpError, match="no queue of Hearth's"):
        await open_queue(f"bolt://{file}", FakeClock())
    assert file.read_bytes() == old


async def test_a_message_that_names_no_call_is_that_of_the_call_it_was_pushed_for(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([call("first"), call("good")])
    durable.garble(b"\xff{")
    async with opened(durable) as queue:
        found = {one.call.id: one for one in await queue.reserve(10)}
        assert (found["good"].fault, found["good"].call.path) == ("", "/p")
        first = found["first"]
        assert (first.call.app_name, first.call.path, first.call.payload) == ("a", "", b"\xff{")
        assert (first.call.unreadable, "cannot be read" in first.fault) == (True, True)
        assert await queue.acknowledge([first.lease]) == [True]
        await durable.advance(queue.visibility_s + 1)
        assert await names(queue) == ["good"]


#: What a message of 0.1 may have become, with the app and the id that it is kept under.
DAMAGED = [
    (b'{"id": "x", "app_name": "a", "path": "/p", "timeout": "30s', ("a", "x")),
    (b'{"id": 7, "app_name": "a", "path": "/p"}', ("unknown.app", "unreadable-")),
    (b'{"id": "x", "payload": "\\"app_name\\": \\"b\\""}', ("unknown.app", "unreadable-")),
    (b'{"id": "\\ud800", "app_name": "a"', ("unknown.app", "unreadable-")),
    (b"\x01\xff", ("unknown.app", "unreadable-")),
]


@pytest.mark.parametrize(("data", "kept"), DAMAGED)
async def test_an_unreadable_message_of_a_version_that_knew_no_names_is_kept(
    durable: QueueAtHand, data: bytes, kept: tuple[str, str]
) -> None:
    durable.write_as_0_1([data, encode_call(call("good"))])
    async with opened(durable) as queue:
        first, good = sorted(await queue.reserve(10), key=lambda one: one.call.id == "good")
        assert (good.call.id, good.fault) == ("good", "")
        assert (first.call.app_name, first.call.id[: len(kept[1])]) == kept
        assert (first.call.payload, first.call.unreadable, "cannot be read" in first.fault) == (data, True, True)
        await durable.advance(queue.visibility_s + 1)
        again = await queue.reserve(10)
        assert {one.call.id for one in again} == {first.call.id, "good"}, "it stays under one id until it is recorded"
        assert await queue.acknowledge([one.lease for one in again]) == [True, True]


async def test_a_message_that_nobody_can_run_still_names_its_call(durable: QueueAtHand) -> None:
    async with opened(durable) as queue:
        await queue.push([call("first")])
    durable.garble(b'{"id":"first","app_name":"a","path":"/p","payload":"x","payload_encoding":"rot13"}')
    async with opened(durable) as queue:
        (reserved,) = await queue.reserve(1)
        assert (reserved.call.id, reserved.call.app_name, reserved.call.path) == ("first", "a", "/p")
        assert "rot13" in reserved.fault
        assert await queue.acknowledge([reserved.lease]) == [True]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nats://x", "mq type not supported nats"),
        ("nonsense:secret@host", "bad MQ URL"),
        ("redis://:secret@", "bad MQ URL"),
        ("redis://:secret@host:port/", "bad MQ URL"),
    ],
)
async def test_an_unknown_queue_is_a_sentence_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(StartUpError, match=sentence) as raised:
        await open_queue(url, FakeClock())
    assert "secret" not in str(raised.value)


async def test_the_file_gives_the_space_of_messages_back(tmp_path: Path) -> None:
    place = BoltAtHand(FakeClock(), tmp_path)
    async with opened(place) as queue:
        await queue.push([call(f"{n}", payload=bytes(200_000)) for n in range(200)])
        reserved = []
        while taken := await queue.reserve(50):
            reserved += taken
        large = place.file.stat().st_size
        await queue.acknowledge([one.lease for one in reserved])
        for _ in range(20):
            await queue.backlog()
        assert place.file.stat().st_size < large / 4 or large < 1 << 20
    assert sum(file.stat().st_size for file in place.file.parent.iterdir()) < 8 << 20


async def test_a_file_of_an_earlier_version_gives_space_back_too(tmp_path: Path) -> None:
    place = BoltAtHand(FakeClock(), tmp_path)
    async with opened(place) as queue:
        await queue.push([call("kept")])
    with sqlite3.connect(place.file) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute("VACUUM")
    db.close()
    async with opened(place) as queue:
        assert await names(queue) == ["kept"]
    with sqlite3.connect(place.file) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    db.close()
