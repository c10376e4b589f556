"""From a request to a finished call, in virtual time: the conformance rows of the agent's specification."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from tests.support.agent import OBEDIENT, WATCH_S, Bench, Sink, bench, settle
from tests.support.virtual_time import run

from hearth.access.base import EndedCall
from hearth.agent.outcomes import Stopped
from hearth.drivers.base import (
    DriverError,
    DriverUnavailable,
    Exit,
    ImageHasVolumes,
    ImageNotFound,
    OutOfTime,
    PhaseLimits,
    StartFailed,
)
from hearth.models.app import App
from hearth.models.errors import (
    CallTimeout,
    ContainerExited,
    ContainerStartFailed,
    ImageHasVolume,
    ImagePullFailed,
    ImagePullTimeout,
    InternalError,
    OutOfMemory,
    RoutesInvalidTimeout,
    ServerBusy,
)
from hearth.models.function import Amount
from hearth.models.route import RouteLimits
from hearth.testing.script import Pipe, Script, Step

T = TypeVar("T")
Scenario = Callable[[Bench], Coroutine[Any, Any, T]]


def play(scenario: Scenario[T], **options: Any) -> T:
    """Run a scenario on a bench of its own; afterwards nothing may be left."""

    async def whole() -> T:
        async with bench(**options) as made:
            return await scenario(made)

    return run(whole())


async def silent(*pipes: Any) -> int:
    """A program that never answers."""
    await asyncio.sleep(1000)
    return 0


def test_sequential_calls_use_one_container() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        answers = [await on.ask(function, echo=str(n)) for n in range(20)]
        assert answers == [str(n) for n in range(20)]
        assert on.driver.counts.prepared == 1
        assert on.statuses() == ["success"] * 20

    play(scenario)


def test_concurrent_calls_get_containers_as_room_allows() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(memory=100)
        answers = await asyncio.gather(*[on.ask(function, echo=str(n), sleep=1) for n in range(20)])
        assert answers == [str(n) for n in range(20)]
        assert on.driver.counts.peak_memory_mib == 1000

    play(scenario)


def test_with_processors_idle_a_waiting_call_is_worth_a_container() -> None:
    script = Script(main=OBEDIENT, start=Step(delay_s=0.05))

    async def scenario(on: Bench) -> None:
        function = on.function(memory=1)

        async def client() -> None:
            for _ in range(20):
                await on.ask(function, sleep=0.01)

        await asyncio.gather(*[client() for _ in range(60)])
        assert on.driver.counts.prepared >= 30

    play(scenario, images={"obey": script})


def test_when_nobody_waits_any_more_containers_that_are_not_begun_yet_are_given_up_at_once() -> None:
    script = Script(main=OBEDIENT, start=Step(delay_s=0.05))

    async def scenario(on: Bench) -> None:
        function = on.function(memory=1)
        await asyncio.gather(*[on.ask(function) for _ in range(10)])
        await settle()
        assert on.agent.pool.containers["wait"] == 0
        await asyncio.sleep(1)
        assert on.driver.counts.prepared <= 4

    play(scenario, images={"obey": script}, max_starts=2)


def test_a_burst_asks_for_few_containers_ahead_and_gets_all() -> None:
    script = Script(main=OBEDIENT, start=Step(delay_s=0.05))

    async def scenario(on: Bench) -> None:
        function = on.function(memory=10)
        calls = [on.start(function, sleep=5) for _ in range(50)]
        await settle()
        assert on.agent.pool.containers["wait"] <= 8
        await asyncio.gather(*calls)
        assert on.driver.counts.prepared == 50

    play(scenario, images={"obey": script}, max_starts=2)


@pytest.mark.parametrize(("is_busy", "within_s", "at_least"), [(False, 1.2, 100), (True, 3.2, 60)])
def test_calls_that_containers_keep_start_one_each(is_busy: bool, within_s: float, at_least: int) -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(memory=1)
        for calls in (10, 100):
            begun = on.clock.monotonic()
            await asyncio.gather(*[on.ask(function, sleep=1) for _ in range(calls)])
            assert on.clock.monotonic() - begun < within_s
        assert at_least <= on.driver.counts.prepared <= 100

    play(scenario, are_busy=lambda: is_busy)


def test_what_can_never_fit_is_refused_at_once_without_retry_after() -> None:
    async def scenario(on: Bench) -> None:
        with pytest.raises(ServerBusy) as refused:
            on.agent.check_capacity(on.function(memory=1001))
        assert "Retry-After" not in refused.value.headers
        on.agent.check_capacity(on.function(memory=1000))
        with pytest.raises(ServerBusy):
            on.agent.check_capacity(on.function(memory=801, type="async"))

    play(scenario)


def test_a_node_full_of_busy_containers_refuses_after_half_the_timeout() -> None:
    async def scenario(on: Bench) -> None:
        busy = on.start(on.function("/busy", memory=1000, timeout=60), sleep=40)
        await settle()
        begun = on.clock.monotonic()
        with pytest.raises(ServerBusy) as refused:
            await on.ask(on.function(memory=500, timeout=5))
        assert refused.value.headers["Retry-After"] == "15"
        assert on.clock.monotonic() - begun == pytest.approx(2.5)
        assert on.statuses() == []  # a call that was turned away leaves no record
        await busy

    play(scenario)


def test_idle_containers_of_others_give_way() -> None:
    async def scenario(on: Bench) -> None:
        functions = [on.function(f"/{n}", memory=600) for n in range(2)]
        for turn in range(10):
            assert await on.ask(functions[turn % 2], echo=str(turn)) == str(turn)
        assert on.driver.counts.prepared == 10
        assert on.driver.counts.peak_memory_mib == 600

    play(scenario)


def test_only_as_many_idle_containers_as_needed_give_way_longest_idle_first() -> None:
    async def scenario(on: Bench) -> None:
        for n in range(5):
            await on.ask(on.function(f"/{n}", memory=200))
            await asyncio.sleep(0.1)
        await on.ask(on.function("/new", memory=400))
        await settle()
        left = {one.spec.labels["path"] for one in on.driver.containers.values()}
        assert left == {"/2", "/3", "/4", "/new"}

    play(scenario)


def test_no_container_gives_way_for_an_async_call_that_could_not_use_its_memory() -> None:
    async def scenario(on: Bench) -> None:
        await on.ask(on.function("/sync", memory=200))  # lies in the sync reserve, whole
        busy = on.start(on.function("/busy", type="async", memory=800), sleep=3)
        await settle()
        waits = on.start(on.function("/waits", type="async", memory=800))
        await asyncio.sleep(1)
        assert "/sync" in {one.spec.labels["path"] for one in on.driver.containers.values()}
        await asyncio.gather(busy, waits)

    play(scenario)


def test_async_load_never_keeps_sync_calls_out() -> None:
    async def scenario(on: Bench) -> None:
        later = on.function("/later", type="async", memory=200, timeout=100)
        backlog = [on.start(later, sleep=5) for _ in range(20)]
        await settle()
        assert not on.agent.pool.has_async_room()
        begun = on.clock.monotonic()
        assert await on.ask(on.function("/now", memory=200), echo="now") == "now"
        assert on.clock.monotonic() == begun
        for task in backlog:
            task.cancel()
        await asyncio.gather(*backlog, return_exceptions=True)

    play(scenario)


def test_a_missing_image_fails_all_who_wait_with_few_pulls() -> None:
    script = Script(is_present=False, pull=Step(delay_s=1, error=ImageNotFound("gone", "no such image")))

    async def scenario(on: Bench) -> None:
        function = on.function(image="gone")
        answers = await asyncio.gather(*[on.ask(function) for _ in range(50)], return_exceptions=True)
        assert {str(answer) for answer in answers} == {"Failed to pull image 'gone': no such image"}
        assert {type(answer) for answer in answers} == {ImagePullFailed}
        assert on.driver.counts.pulls == 1
        assert on.statuses() == ["error"] * 50

    play(scenario, images={"gone": script}, total=Amount(100_000, 8000))


def test_an_image_with_volumes_is_the_callers_error() -> None:
    script = Script(create=Step(error=ImageHasVolumes("disky", ["/data"])))

    async def scenario(on: Bench) -> None:
        function = on.function(image="disky")
        for _ in range(2):
            with pytest.raises(ImageHasVolume, match=r"^image has Volume definition$") as refused:
                await on.ask(function)
            assert refused.value.code == 400
        assert on.statuses() == ["error"] * 2

    play(scenario, images={"disky": script})


def test_a_log_is_cut_at_the_limit_of_the_node() -> None:
    async def scenario(on: Bench) -> None:
        await on.ask(on.function(), say="123456")
        (ended,) = on.records.ended
        assert ended.log == b"1234\n-----max log size 4 bytes exceeded, truncating log-----\n"

    play(scenario, log_limit_bytes=4)


def test_an_image_that_appears_works_after_the_failure() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="new")
        with pytest.raises(ImagePullFailed):
            await on.ask(function)
        on.driver.images["new"] = Script(main=OBEDIENT)
        with pytest.raises(ImagePullFailed):
            await on.ask(function)  # told at once what was found a moment ago
        await asyncio.sleep(1.1)
        assert await on.ask(function, echo="here") == "here"

    play(scenario)


def test_a_failed_start_is_told_to_one_who_waited_and_to_nobody_later() -> None:
    script = Script(main=OBEDIENT, start=Step(delay_s=0.1, error=StartFailed("engine trouble"), failures=1))

    async def scenario(on: Bench) -> None:
        function = on.function(image="shaky")
        answers = await asyncio.gather(*[on.ask(function, echo="x") for _ in range(5)], return_exceptions=True)
        assert sorted(map(str, answers)) == ["engine trouble", "x", "x", "x", "x"]
        assert await on.ask(function, echo="later") == "later"

    play(scenario, images={"shaky": script})


def test_failing_starts_are_no_storm() -> None:
    script = Script(main=OBEDIENT, start=Step(error=DriverUnavailable("gone")))

    async def scenario(on: Bench) -> None:
        function = on.function(image="never", timeout=20)
        end = on.clock.monotonic() + 10
        while on.clock.monotonic() < end:
            with pytest.raises(DriverError):
                await on.ask(function)
        assert on.driver.counts.prepared < 20

    play(scenario, images={"never": script})


def test_a_program_that_cannot_start_is_the_images_fault() -> None:
    script = Script(start=Step(error=StartFailed("permission denied", image_fault=True)))

    async def scenario(on: Bench) -> None:
        with pytest.raises(ContainerStartFailed, match="permission denied"):
            await on.ask(on.function(image="bad"))

    play(scenario, images={"bad": script})


def test_functions_that_hang_in_their_start_keep_nobody_from_starting() -> None:
    stuck = Script(main=OBEDIENT, start=Step(held=True))

    async def scenario(on: Bench) -> None:
        hanging = [on.start(on.function(f"/{n}", image="stuck", memory=10, timeout=120)) for n in range(20)]
        await asyncio.sleep(5)
        begun = on.clock.monotonic()
        assert await on.ask(on.function(memory=10), echo="fine") == "fine"
        assert on.clock.monotonic() - begun <= 1
        stuck.start.release()
        await asyncio.gather(*hanging)

    play(scenario, images={"stuck": stuck})


@pytest.mark.parametrize("phase", ["pull", "create", "start"])
def test_a_phase_that_hangs_ends_at_its_own_limit(phase: str) -> None:
    script = Script(main=OBEDIENT, is_present=phase != "pull", **dict[str, Any]({phase: Step(held=True)}))

    async def scenario(on: Bench) -> None:
        function = on.function(image="hangs", timeout=120)
        on.driver.limits = PhaseLimits(pull_s=7, create_s=7, start_s=7)
        begun = on.clock.monotonic()
        with pytest.raises(ImagePullTimeout if phase == "pull" else OutOfTime, match=phase):
            await on.ask(function)
        assert on.clock.monotonic() - begun == pytest.approx(7)
        getattr(script, phase).release()
        assert await on.ask(function, echo="again") == "again"

    play(scenario, images={"hangs": script})


def test_a_start_begun_for_one_who_left_serves_the_next() -> None:
    slow = Script(main=OBEDIENT, start=Step(delay_s=3))

    async def scenario(on: Bench) -> None:
        function = on.function(image="slow", timeout=2)
        with pytest.raises(ServerBusy):
            await on.ask(function)
        await asyncio.sleep(3)
        assert await on.ask(function, echo="warm") == "warm"
        assert on.driver.counts.prepared == 1

    play(scenario, images={"slow": slow})


def test_memory_is_not_given_out_again_before_the_container_is_gone() -> None:
    script = Script(main=OBEDIENT, remove=Step(error=DriverError("engine trouble"), failures=3))

    async def scenario(on: Bench) -> None:
        await on.ask(on.function("/old", image="sticky", memory=1000))
        await asyncio.sleep(WATCH_S)
        begun = on.clock.monotonic()
        assert await on.ask(on.function("/new", memory=500), echo="new") == "new"
        assert on.clock.monotonic() - begun == pytest.approx(3)  # three tries, a second apart
        assert on.driver.counts.peak_memory_mib == 1000

    play(scenario, images={"sticky": script})


def test_a_container_that_dies_idle_harms_no_call() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        await on.ask(function)
        (container,) = on.driver.containers.values()
        container.end(Exit(137))
        assert await on.ask(function, echo="next") == "next"
        assert on.statuses() == ["success"] * 2

    play(scenario)


@pytest.mark.parametrize(
    ("ended", "error"), [(Exit(137), ContainerExited), (Exit(137, oom=True), OutOfMemory), (Exit(0), ContainerExited)]
)
def test_a_container_that_dies_busy_fails_its_own_call_only(ended: Exit, error: type[Exception]) -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        running = on.start(function, sleep=10)
        await settle()
        (container,) = on.driver.containers.values()
        container.end(ended)
        with pytest.raises(error):
            await running
        assert await on.ask(function, echo="next") == "next"
        assert on.statuses() == ["error", "success"]

    play(scenario)


def test_a_node_may_be_given_other_limits_so_that_a_call_can_be_held_for_longer() -> None:
    async def scenario(on: Bench) -> None:
        assert await on.ask(on.function(timeout=400), echo="held", sleep=390) == "held"
        with pytest.raises(RoutesInvalidTimeout):
            on.function(timeout=401)

    play(scenario, limits=RouteLimits(sync_timeout_s=400))


async def stillborn(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """A program that cannot be loaded."""
    await stderr.write(b"import tea\nImportError: no \x00 tea\n\n")
    return 3


@pytest.mark.parametrize("format_name", ["json", "default"])
def test_why_a_program_ended_is_in_the_log_of_its_call_and_in_short_in_its_record(format_name: str) -> None:
    async def scenario(on: Bench) -> None:
        with pytest.raises(ContainerExited, match=r"^container exit code 3$"):
            await on.ask(on.function(image="stillborn", format=format_name))
        (ended,) = on.records.ended
        assert ended.log == b"import tea\nImportError: no \x00 tea\n\n"
        assert ended.call.error == "container exit code 3: ImportError: no   tea; see the call's log"

    play(scenario, images={"stillborn": Script(main=stillborn)})


def test_a_container_in_the_making_whose_image_is_built_anew_does_not_serve() -> None:
    async def scenario(on: Bench) -> None:
        asked = on.start(on.function(image="slow"), echo="new")
        await settle()
        (old,) = on.driver.containers
        on.driver.stale.add(old)
        await on.functions.refresh("a", "/f")
        assert await asked == "new"
        assert old not in on.driver.containers
        assert on.driver.counts.prepared == 2

    play(scenario, images={"slow": Script(main=OBEDIENT, start=Step(delay_s=1.0))})


def test_an_idle_container_ends_after_its_idle_timeout_and_not_before() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(idle_timeout=1)
        for _ in range(20):
            await on.ask(function)
            await asyncio.sleep(0.5)
        assert on.driver.counts.prepared == 1
        await asyncio.sleep(0.6)
        assert on.driver.counts.alive == 0

    play(scenario)


def test_surplus_containers_age_out() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(memory=100, idle_timeout=5)
        await asyncio.gather(*[on.ask(function, sleep=1) for _ in range(8)])
        assert on.driver.counts.alive == 8
        for _ in range(20):
            await on.ask(function, sleep=0.9)
        await settle()
        assert on.driver.counts.alive == 1  # the newest was taken each time

    play(scenario)


def test_progress_when_all_containers_are_stuck_in_long_calls() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(memory=100, timeout=100)
        long = [on.start(function, sleep=90) for _ in range(3)]
        await settle()
        assert await on.ask(function, echo="quick") == "quick"
        await asyncio.gather(*long)

    play(scenario)


def test_the_deadline_is_the_whole_timeout_with_a_free_slot() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=1)
        assert await on.ask(function, sleep=0.9, echo="just") == "just"
        begun = on.clock.monotonic()
        with pytest.raises(CallTimeout):
            await on.ask(function, sleep=5)
        assert on.clock.monotonic() - begun == pytest.approx(1)
        assert await on.ask(function, echo="mine") == "mine"
        assert on.statuses() == ["success", "timeout", "success"]

    play(scenario)


def test_a_slow_removal_does_not_delay_the_answer() -> None:
    script = Script(main=silent, remove=Step(delay_s=30))

    async def scenario(on: Bench) -> None:
        for format_name in ("json", "default"):
            function = on.function(f"/{format_name}", image="sticky", timeout=1, format=format_name)
            begun = on.clock.monotonic()
            with pytest.raises(CallTimeout):
                await on.ask(function)
            assert on.clock.monotonic() - begun == pytest.approx(1)

    play(scenario, images={"sticky": script})


def test_shutdown_ends_waits_finishes_what_runs_and_leaves_nothing() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(memory=500, timeout=100)
        await on.ask(on.function("/idle", memory=10))
        running = [on.start(function, sleep=5, echo="done") for _ in range(1)]
        await settle()
        waiting = [on.start(on.function("/large", memory=1000, timeout=100)) for _ in range(3)]
        cold = on.start(on.function("/cold", memory=1000, timeout=100, format="default"))
        await settle()
        on.agent.drain()
        for task in (*waiting, cold):
            with pytest.raises(ServerBusy):
                await task
        with pytest.raises(ServerBusy):
            await on.ask(function)
        assert [await task for task in running] == ["done"]
        on.agent.drain()

    play(scenario)


def test_an_abort_breaks_off_what_runs_and_records_it() -> None:
    async def scenario(on: Bench) -> None:
        running = on.start(on.function(timeout=100), sleep=60)
        cold = on.start(on.function("/cold", image="cold", timeout=100, format="default"))
        await settle()
        on.agent.abort()
        for task in (running, cold):
            with pytest.raises(Stopped):
                await task
        assert on.statuses() == ["error", "error"]

    play(scenario, images={"cold": Script(main=silent)})


def test_an_abort_cuts_off_no_answer_that_waits_for_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(on: Bench) -> None:
        async def slow(ended: list[EndedCall]) -> None:
            await asyncio.sleep(3)
            on.records.ended += ended

        monkeypatch.setattr(on.records, "finish_many", slow)
        answered = on.start(on.function(), echo="done")
        await asyncio.sleep(1)
        on.agent.abort()
        assert await answered == "done"
        assert on.statuses() == ["success"]

    play(scenario)


def test_an_abort_does_not_wait_for_containers_that_cannot_be_removed() -> None:
    script = Script(main=OBEDIENT, remove=Step(error=DriverError("engine gone"), failures=100))

    async def whole() -> None:
        on: Bench | None = None
        with contextlib.suppress(AssertionError):  # the one container is left, and the bench notices
            async with bench(images={"sticky": script}) as on:
                await on.ask(on.function(image="sticky"))
                on.agent.abort()
        assert on is not None
        assert on.clock.monotonic() < 20
        assert on.driver.counts.alive == 1
        assert on.agent.pool.resources.used == Amount(0, 0)

    run(whole())


def test_containers_of_a_changed_route_end() -> None:
    async def scenario(on: Bench) -> None:
        old = on.function(config={"V": "1"}, timeout=60)
        busy = on.start(old, sleep=5, echo="old")
        await settle()
        await on.ask(old)
        await asyncio.sleep(WATCH_S)
        assert on.driver.counts.alive == 2
        on.function(config={"V": "2"}, timeout=60)
        await settle()
        assert on.driver.counts.alive == 1  # the idle one is gone, the busy one finishes
        assert await busy == "old"
        await asyncio.sleep(WATCH_S)
        assert on.driver.counts.alive == 0

    play(scenario)


def test_containers_of_a_removed_route_or_app_end_and_those_of_an_equal_one_stay() -> None:
    async def scenario(on: Bench) -> None:
        for path in ("/kept", "/removed"):
            await on.ask(on.function(path))
        await asyncio.sleep(WATCH_S)
        del on.records.routes["/removed"]
        await on.functions.refresh("a")
        await settle()
        assert [one.spec.labels["path"] for one in on.driver.containers.values()] == ["/kept"]
        on.records.app = App(name="a", config={"NEW": "1"})
        await on.functions.refresh("a")
        await settle()
        assert on.driver.counts.alive == 0

    play(scenario)


def test_a_client_that_leaves_while_it_waits_leaves_no_trace() -> None:
    async def scenario(on: Bench) -> None:
        busy = on.start(on.function("/busy", memory=1000, timeout=60), sleep=5)
        await settle()
        leaving = on.start(on.function(memory=500, timeout=60))
        await settle()
        leaving.cancel()
        await settle()
        assert on.agent.pool.resources.waiting == 0
        assert on.statuses() == []
        await busy

    play(scenario)


def test_a_client_that_leaves_a_running_call_is_recorded_and_its_container_retired() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function()
        running = on.start(function, sleep=5)
        await settle()
        running.cancel()
        await settle()
        assert [one.call.error for one in on.records.ended] == ["context canceled"]
        assert on.driver.counts.alive == 0
        assert await on.ask(function, echo="mine") == "mine"

    play(scenario)


def test_counters_are_conserved_over_every_outcome() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=2, memory=100)
        orders: list[dict[str, Any]] = [{}, {"exit": 1}, {"exit": 0}, {"raw": "garbage\n\n"}, {"sleep": 9}]
        tasks = [on.start(function, **orders[n % 5]) for n in range(50)]
        gone = on.start(function, sleep=9)
        await asyncio.sleep(0.5)
        gone.cancel()
        await asyncio.gather(*tasks, gone, return_exceptions=True)
        total = on.agent.stats.total
        assert (total.queue, total.running) == (0, 0)
        assert total.complete + total.failed + total.busy == 51
        assert len(on.records.ended) == 50  # the one that left while it waited has no record

    play(scenario)


def test_a_record_that_cannot_be_stored_does_not_hold_the_answer_for_ever() -> None:
    async def scenario(on: Bench) -> None:
        async def never(ended: Any) -> None:
            await asyncio.sleep(1000)
            raise InternalError("gone")

        on.records.finish_many = never  # type: ignore[method-assign]
        sink = Sink()
        call = on.call(on.function(), sink, echo="x")
        begun = on.clock.monotonic()
        end = await on.agent.run(call)
        assert on.clock.monotonic() - begun <= 10
        assert end.error is None
        assert not end.is_stored

    play(scenario)
