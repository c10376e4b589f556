"""Containers that are kept ready (``min_instances``), and the most that there may be (``max_instances``)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.agent import OBEDIENT, WATCH_S, Bench, Sink, bench, settle
from tests.support.virtual_time import run

from hearth.agent.lending import WHOLE, Part
from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import ScalingPolicy, Snapshot
from hearth.agent.scaling.simple import SimplePolicy
from hearth.drivers.base import Exit, StartFailed
from hearth.models.call import Call
from hearth.models.errors import InvalidInstances
from hearth.models.function import Amount
from hearth.models.ids import encode
from hearth.models.instances import MAX_INSTANCES, Instances, check_instances, of_annotations, validate_instances
from hearth.models.times import ZERO
from hearth.testing.script import Script, Step


def bounds(least: int = 0, most: int | None = None) -> Instances:
    return Instances(min_instances=least, max_instances=most)


def ready(on: Bench, path: str = "/f") -> int:
    """The containers of a function that take calls."""
    launchers = [one for one in on.agent.pool.launchers.values() if one.function.ref.name == path]
    return sum(
        not hot.is_leaving and hot.state.value in ("idle", "busy") for one in launchers for hot in one.containers
    )


def alive(on: Bench, path: str = "/f") -> int:
    """The containers of a function that exist."""
    return sum(one.spec.labels["path"] == path for one in on.driver.containers.values())


# -- the bounds themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"min_instances": -1}, "min_instances must be an integer from 0 to 10000, or null for none"),
        ({"min_instances": MAX_INSTANCES + 1}, "min_instances must be an integer from 0 to 10000, or null for none"),
        ({"min_instances": True}, "min_instances must be an integer from 0 to 10000, or null for none"),
        ({"max_instances": 0}, "max_instances must be an integer from 1 to 10000, or null for any number"),
        ({"max_instances": "2"}, "max_instances must be an integer from 1 to 10000, or null for any number"),
        ({"max_instances": 1.5}, "max_instances must be an integer from 1 to 10000, or null for any number"),
    ],
)
def test_a_bound_is_a_whole_number_within_its_range(given: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidInstances, match=f"^Invalid number of instances: {problem}$"):
        validate_instances(given)


def test_bounds_have_to_fit_together() -> None:
    with pytest.raises(
        InvalidInstances, match=r"^Invalid number of instances: min_instances 3 is above max_instances 2$"
    ):
        check_instances(bounds(3, 2), "json")
    with pytest.raises(InvalidInstances, match="min_instances needs the format http, json or http-stream, not default"):
        check_instances(bounds(1), "default")
    check_instances(bounds(2, 2), "json")
    check_instances(bounds(0, 2), "default")


def test_annotations_set_bounds_and_null_removes_one() -> None:
    assert of_annotations({"hearth/min_instances": "2", "hearth/max_instances": "3", "x": "1"}) == bounds(2, 3)
    assert bounds(2, 3).changed(validate_instances({"min_instances": None, "max_instances": None})) == bounds()


# -- the policy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [AdaptivePolicy(), SimplePolicy()])
@pytest.mark.parametrize(
    ("fields", "starts", "withdrawals"),
    [
        ({"least": 2, "spare": 8}, 2, 0),
        ({"least": 2, "spare": 1}, 1, 0),
        ({"least": 2}, 0, 0),
        ({"least": 2, "spare": 8, "idle": 1, "starting": 1}, 0, 0),
        ({"least": 2, "spare": 8, "idle": 1, "busy": 1}, 0, 0),
        ({"least": 2, "spare": 8, "idle": 1, "busy": 1, "leaving": 1}, 1, 0),
        ({"least": 1, "reserving": 3}, 0, 2),
        ({"least": 2, "spare": 8, "refill_at": 100.1}, 0, 0),
        ({"least": 2, "spare": 8, "not_before": 100.1}, 0, 0),
        ({"least": 2, "spare": 8, "refill_at": 100.1, "waiting": 1}, 1, 0),
        ({"most": 2, "waiting": 9}, 2, 0),
        ({"most": 2, "waiting": 9, "busy": 1}, 1, 0),
        ({"most": 2, "waiting": 9, "busy": 2}, 0, 0),
        ({"most": 2, "waiting": 9, "oldest_since": 0.0, "busy": 2}, 0, 0),
        ({"most": 1, "waiting": 9, "reserving": 2}, 0, 1),
        ({"most": 1, "least": 1, "spare": 8, "busy": 1, "leaving": 1}, 0, 0),
        ({"most": 2, "waiting": 9, "concurrency": 4, "busy": 1}, 1, 0),
    ],
)
def test_the_decision(policy: ScalingPolicy, fields: dict[str, Any], starts: int, withdrawals: int) -> None:
    decided = policy.decide(Snapshot(**{"now": 100.0, "timeout_s": 30, "max_starts": 16, "fits": 16, **fields}))
    assert (decided.starts, decided.withdrawals) == (starts, withdrawals)


@pytest.mark.parametrize(
    ("fields", "again"),
    [
        ({"least": 2, "refill_at": 100.1}, 100.1),
        ({"least": 2, "not_before": 100.2, "refill_at": 100.1}, 100.2),
        ({"least": 2, "spare": 8, "idle": 2}, None),
        ({"least": 2}, 101.0),
        ({"least": 2, "refill_at": 100.1, "starting": 2}, None),
        ({"not_before": 100.1}, None),
    ],
)
def test_a_delayed_refill_is_looked_at_again(fields: dict[str, Any], again: float | None) -> None:
    assert SimplePolicy().decide(Snapshot(now=100.0, timeout_s=30, max_starts=4, **fields)).look_again_at == again


# -- containers that are kept ready ------------------------------------------------------------------------------


def test_containers_start_before_the_first_call_and_outlive_their_idle_timeout() -> None:
    async def scenario() -> None:
        async with bench() as on:
            function = on.function(instances=bounds(2), idle_timeout=1)
            await asyncio.sleep(1)
            assert ready(on) == 2
            calls = [on.start(function, sleep=1) for _ in range(4)]
            await asyncio.sleep(0.5)
            assert on.agent.stats.total.running >= 2, "both were ready"
            await asyncio.gather(*calls)
            assert ready(on) > 2
            await asyncio.sleep(20)
            assert ready(on) == 2, "those that are not kept ready end when they are idle for too long"

    run(scenario())


def test_another_minimum_counts_at_once_without_new_containers() -> None:
    async def scenario() -> None:
        async with bench() as on:
            on.function(instances=bounds(1), idle_timeout=1)
            await asyncio.sleep(1)
            first = set(on.driver.containers)
            on.function(instances=bounds(3), idle_timeout=1)
            await asyncio.sleep(1)
            assert ready(on) == 3
            assert first < set(on.driver.containers)
            on.function(idle_timeout=1)
            await asyncio.sleep(3)
            assert on.driver.containers == {}

    run(scenario())


def test_a_new_version_is_started_in_advance_in_place_of_the_old_one() -> None:
    async def scenario() -> None:
        async with bench() as on:
            on.function(instances=bounds(2), config={"V": "1"})
            await asyncio.sleep(1)
            on.function(instances=bounds(2), config={"V": "2"})
            await asyncio.sleep(1)
            assert [one.spec.env["V"] for one in on.driver.containers.values()] == ["2", "2"]

    run(scenario())


def test_a_deleted_function_loses_its_containers() -> None:
    async def scenario() -> None:
        async with bench() as on:
            on.function(instances=bounds(2))
            await asyncio.sleep(1)
            assert not on.functions.forget("a", "/f")
            await asyncio.sleep(1)
            assert on.driver.containers == {}

    run(scenario())


def test_a_container_that_dies_or_is_used_up_is_replaced() -> None:
    async def scenario() -> None:
        async with bench() as on:
            function = on.function(instances=bounds(2))
            await asyncio.sleep(1)
            on.start(function, exit=1).add_done_callback(lambda done: done.exception())
            await asyncio.sleep(1)
            assert ready(on) == 2
            next(iter(on.driver.containers.values())).end(Exit(137))
            await asyncio.sleep(1)
            assert ready(on) == 2

    run(scenario())


def test_containers_that_end_before_their_first_call_are_replaced_ever_later() -> None:
    async def scenario() -> None:
        async def falls_over(stdin: Any, stdout: Any, stderr: Any) -> int:
            return 1

        async with bench(images={"bad": Script(main=falls_over)}) as on:
            on.function(image="bad", instances=bounds(1))
            await asyncio.sleep(60)
            assert 15 < on.driver.counts.prepared < 60
            on.function()

    run(scenario())


def test_starts_that_fail_are_tried_again_with_the_usual_back_off() -> None:
    async def scenario() -> None:
        shaky = Script(main=OBEDIENT, start=Step(error=StartFailed("trouble"), failures=5))
        async with bench(images={"shaky": shaky}) as on:
            on.function(image="shaky", instances=bounds(1))
            await asyncio.sleep(0.2)
            assert on.driver.counts.prepared < 5
            await asyncio.sleep(5)
            assert ready(on) == 1

    run(scenario())


def test_more_than_a_part_of_the_node_is_never_kept_and_what_is_unmet_is_reported() -> None:
    async def scenario() -> None:
        async with bench(total=Amount(1000, 0)) as on:
            metrics = on.agent.telemetry.metrics
            unmet = metrics.gauge("hearth_min_instances_unmet")
            with capture_logs() as logs:
                on.function("/one", memory=300, instances=bounds(2))
                on.function("/two", memory=100, instances=bounds(5))
            await asyncio.sleep(1)
            assert (ready(on, "/one"), ready(on, "/two")) == (2, 2)
            assert [one["event"] for one in logs] == ["min_instances not met"]
            assert (logs[0]["min_instances"], logs[0]["kept"], logs[0]["path"]) == (5, 2, "/two")
            assert (unmet.series("a", "/one").value, unmet.series("a", "/two").value) == (0, 3)
            (warning,) = on.agent.pool.minima.warnings
            assert "1 function(s): 3 container(s)" in warning
            on.function("/one", memory=300)
            await asyncio.sleep(60)
            assert (ready(on, "/one"), ready(on, "/two")) == (0, 5)
            assert on.agent.pool.minima.warnings == ()

    run(scenario())


def test_idle_containers_of_others_give_way_to_those_that_are_kept_ready() -> None:
    async def scenario() -> None:
        async with bench(total=Amount(1000, 0)) as on:
            await on.ask(on.function("/other", memory=900, idle_timeout=3600))
            on.function(memory=400, instances=bounds(1))
            await asyncio.sleep(3)
            assert (ready(on), ready(on, "/other")) == (1, 0)

    run(scenario())


def test_calls_get_memory_before_containers_that_no_call_waits_for() -> None:
    async def scenario() -> None:
        async with bench(total=Amount(1000, 0)) as on:
            long = on.start(on.function("/long", memory=700, timeout=60), sleep=5)
            await asyncio.sleep(1)
            waits = on.start(on.function("/waits", memory=900, timeout=60), sleep=5)
            await asyncio.sleep(0.1)
            on.function(memory=200, instances=bounds(1))
            await asyncio.sleep(1)
            assert ready(on) == 0, "there is room, and a call waits for it"
            assert on.agent.pool.resources.waiting == 1, "what no call needs stands in nobody's way"
            await asyncio.gather(long, waits)

    run(scenario())


def test_kept_containers_give_way_last_and_only_to_a_call_that_has_waited_for_long() -> None:
    async def scenario() -> None:
        async with bench(total=Amount(1000, 0)) as on:
            on.function(memory=400, instances=bounds(2))
            await asyncio.sleep(1)
            other = on.function("/other", memory=400, timeout=16)  # a call waits for 8 s at most
            call = on.start(other, sleep=1)
            await asyncio.sleep(1.9)
            assert (ready(on), ready(on, "/other")) == (2, 0)
            await asyncio.sleep(0.2)
            assert (ready(on), ready(on, "/other")) == (1, 1)
            await call
            await asyncio.sleep(10)
            assert ready(on) == 2, "the container of the call gives way"

    run(scenario())


def test_accepted_calls_run_in_the_containers_that_an_async_route_keeps_ready() -> None:
    async def scenario() -> None:
        async with bench() as on:
            route = on.function(type="async", instances=bounds(1, 1))
            await asyncio.sleep(1)
            record = Call.of(route, encode(7), ZERO, method="POST", url="http://h/r/a/f", headers={})
            assert record.max_instances == 1
            accepted = await on.functions.of_call(record)
            assert await on.ask(accepted, echo="here") == "here"
            assert on.driver.counts.prepared == 1

    run(scenario())


def test_a_bound_of_an_accepted_call_counts_where_no_definition_is_known() -> None:
    async def scenario() -> None:
        async with bench() as on:
            spec = msgspec.structs.replace(on.function("/other", type="async"), max_instances=2)
            for bound in (2, 1):
                record = Call.of(spec, encode(7), ZERO, method="POST", url="http://h/r/a/f", headers={})
                record.path, record.max_instances = "/f", bound
                accepted = await on.functions.of_call(record)
                on.agent.accepted_call(accepted, record)
                calls = [on.start(accepted, sleep=1) for _ in range(4)]
                await asyncio.sleep(0.9)
                assert alive(on) == bound
                await asyncio.gather(*calls)

    run(scenario())


def test_a_minimum_that_has_no_room_survives_a_function_that_is_forgotten() -> None:
    async def scenario() -> None:
        async with bench(total=Amount(1000, 0)) as on:
            on.function("/one", memory=800, instances=bounds(1))
            on.function("/two", memory=800, instances=bounds(1))
            await asyncio.sleep(4000)  # the second one is forgotten: nothing has happened there for an hour
            assert on.agent.pool.minima.warnings == ()
            on.function("/two", memory=800, instances=bounds(1))
            on.function("/one", memory=800)
            await asyncio.sleep(60)
            assert (ready(on, "/one"), ready(on, "/two")) == (0, 1)

    run(scenario(), limit_s=5000)


def test_a_node_that_drains_starts_none() -> None:
    async def scenario() -> None:
        async with bench() as on:
            on.function(instances=bounds(1))
            await asyncio.sleep(1)
            on.agent.pool.minima.stop()
            next(iter(on.driver.containers.values())).end(Exit(137))
            on.function(instances=bounds(2))
            on.function("/later", instances=bounds(1))
            await asyncio.sleep(5)
            assert on.driver.containers == {}

    run(scenario())


def test_half_of_the_starts_are_left_to_calls() -> None:
    async def scenario() -> None:
        slow = Script(main=OBEDIENT, start=Step(delay_s=0.5))
        async with bench(images={"slow": slow}, max_starts=4, total=Amount(10_000, 0)) as on:
            for number in range(5):
                on.function(f"/{number}", image="slow", instances=bounds(4), memory=10)
            function = on.function("/called", image="slow", memory=10)
            await asyncio.sleep(0.1)
            assert on.agent.pool.containers["start"] + on.agent.pool.containers["wait"] == 2
            called_at = on.clock.monotonic()
            await on.ask(function)
            assert on.clock.monotonic() - called_at < 0.6 + WATCH_S
            await asyncio.sleep(10)
            assert on.agent.pool.containers["idle"] == 21

    run(scenario())


# -- the most that there may be ----------------------------------------------------------------------------------


def test_further_calls_wait_in_order_and_end_as_busy() -> None:
    async def scenario() -> None:
        async with bench() as on:
            function = on.function(instances=bounds(0, 2), timeout=10)
            calls = [on.start(function, sleep=2, echo=str(number)) for number in range(8)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert on.driver.counts.peak_alive == 2
            assert answers[:4] == ["0", "1", "2", "3"]
            assert [getattr(one, "status", 0) for one in answers[6:]] == [503, 503]

    run(scenario())


def test_a_higher_bound_counts_at_once_and_a_lower_one_after_the_calls() -> None:
    async def scenario() -> None:
        async with bench() as on:
            function = on.function(instances=bounds(0, 1), timeout=60)
            calls = [on.start(function, sleep=5) for _ in range(3)]
            await asyncio.sleep(1)
            assert alive(on) == 1
            on.function(instances=bounds(0, 3), timeout=60)
            await asyncio.sleep(1)
            assert alive(on) == 3
            on.function(instances=bounds(0, 1), timeout=60)
            await asyncio.gather(*calls)
            await asyncio.sleep(1)
            assert alive(on) == 1

    run(scenario())


def test_all_versions_of_a_function_count_together() -> None:
    async def scenario() -> None:
        async with bench() as on:
            old = on.function(instances=bounds(0, 1), config={"V": "1"}, timeout=60)
            first = on.start(old, sleep=5)
            await asyncio.sleep(1)
            new = on.function(instances=bounds(0, 1), config={"V": "2"}, timeout=60)
            second = on.start(new, echo="new")
            await asyncio.sleep(1)
            assert alive(on) == 1
            await first
            assert await second == "new"
            assert on.driver.counts.peak_alive == 1

    run(scenario())


def test_async_calls_and_sync_ones_take_turns_within_one_bound() -> None:
    async def scenario() -> None:
        async with bench() as on:
            waiting = on.function(instances=bounds(1, 1), timeout=16)
            await asyncio.sleep(1)
            later = on.functions.detached(on.records.app, on.records.routes["/f"], waiting.secrets)  # type: ignore[arg-type]
            assert later is not None
            assert later.min_instances == 0
            asked_at = on.clock.monotonic()
            assert await on.ask(later, echo="queued") == "queued", "what is kept ready gives way in time"
            assert on.clock.monotonic() - asked_at >= 2, "and not before: a quarter of 8 s"
            assert await on.ask(waiting, echo="x") == "x"
            steady = [on.start(waiting, sleep=0.5) for _ in range(10)]
            queued = on.start(later, echo="again")
            assert await queued == "again", "busy containers give way to a call that has waited for longer"
            await asyncio.gather(*steady, return_exceptions=True)
            assert on.driver.counts.peak_alive == 1

    run(scenario())


def test_containers_for_one_call_each_are_bounded_too() -> None:
    async def scenario() -> None:
        async def once(stdin: Any, stdout: Any, stderr: Any) -> int:
            await asyncio.sleep(1)
            await stdout.write(b"done")
            return 0

        async with bench(images={"once": Script(main=once)}) as on:
            function = on.function(image="once", format="default", instances=bounds(0, 2), timeout=20)
            sinks = [Sink() for _ in range(5)]
            on.submitted += len(sinks)
            await asyncio.gather(*[on.agent.submit(on.call(function, sink)) for sink in sinks])
            assert [sink.body for sink in sinks] == [b"done"] * 5
            assert on.driver.counts.peak_alive == 2

    run(scenario())


def test_a_call_that_leaves_while_it_waits_for_a_place_leaves_nothing() -> None:
    async def scenario() -> None:
        async with bench() as on:
            old = on.function(instances=bounds(0, 1), config={"V": "1"}, timeout=60)
            first = on.start(old, sleep=5)
            await asyncio.sleep(1)
            new = on.function(instances=bounds(0, 1), config={"V": "2"}, timeout=60)
            gone, kept = on.start(new), on.start(new, echo="kept")
            await settle()
            gone.cancel()
            await first
            assert await kept == "kept"
            await asyncio.sleep(WATCH_S)
            last = on.function(instances=bounds(0, 1), config={"V": "3"}, timeout=60)
            busy = on.start(new, sleep=1)
            await asyncio.sleep(0.2)
            gone = on.start(last)
            await asyncio.sleep(0.5)
            gone.cancel()
            await busy
            assert await on.ask(last, echo="last") == "last"

    run(scenario())


# -- several workers of one node ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "parts"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (3, [1, 1, 1]), (5, [2, 2, 1])])
def test_workers_divide_a_number_among_them(count: int, parts: list[int]) -> None:
    assert [Part(number, 3).of(count) for number in range(3)] == parts
    assert WHOLE.of(count) == count


def test_a_worker_keeps_its_part_ready_and_may_have_its_part() -> None:
    async def scenario() -> None:
        async with bench(total=Amount(1000, 0), part=Part(1, 2)) as on:
            on.function("/kept", memory=10, instances=bounds(3))
            on.function("/large", memory=300, instances=bounds(4))
            function = on.function("/called", memory=10, instances=bounds(0, 1), timeout=20)
            await asyncio.gather(*[on.start(function, sleep=1) for _ in range(2)])
            assert (ready(on, "/kept"), ready(on, "/large"), ready(on, "/called")) == (1, 1, 1)

    run(scenario())
