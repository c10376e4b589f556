"""The two phases of a call: it waits for a container and is taken over, then it runs."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.agent import OBEDIENT, WATCH_S, Bench, bench, settle
from tests.support.virtual_time import run

from hearth.agent.call import ActiveCall, NotStarted
from hearth.agent.meters import Outcome
from hearth.agent.states import AgentLife, AgentState, InvalidTransition
from hearth.agent.stats import CallCounts
from hearth.drivers.base import Exit
from hearth.models.call import RUNNING, Call
from hearth.models.errors import ServerBusy
from hearth.testing.script import Pipe, Script

FAILED = Outcome.FAILED
FORMATS = pytest.mark.parametrize("format_name", ["json", "default"])


async def at_once(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    return 0


def accepted(on: Bench, format_name: str = "json", timeout: int = 30) -> ActiveCall:
    """Return an async call that a consumer took from the queue."""
    spec = on.function(memory=10, type="async", format=format_name, timeout=timeout)
    record = Call.of(spec, "accepted", on.clock.now(), method="POST", url="http://h/r/a/f", headers={})
    return on.agent.accepted_call(spec, record)


async def gives_up() -> None:
    raise NotStarted("another node has it")


@FORMATS
def test_a_call_that_may_not_run_leaves_no_record_and_no_container_behind_it(format_name: str) -> None:
    async def scenario() -> None:
        async with bench() as on:
            end = await on.agent.run(accepted(on, format_name), gives_up)
            assert str(end.error) == "another node has it"
            assert (end.ended, end.is_stored, on.records.ended) == (None, False, [])
            assert (on.agent.stats.total.busy, on.agent.stats.total.failed) == (1, 0)
            await asyncio.sleep(WATCH_S)
            assert on.agent.pool.containers["busy"] == 0

    run(scenario())


def test_the_container_of_a_call_that_did_not_run_serves_the_next_one() -> None:
    async def scenario() -> None:
        async with bench() as on:
            await on.agent.run(accepted(on), gives_up)
            end = await on.agent.run(accepted(on))
            assert (end.error, end.is_stored) == (None, True)
            assert on.statuses() == ["success"]
            assert on.driver.counts.prepared == 1

    run(scenario())


def test_a_container_that_ends_before_its_call_runs_serves_no_other() -> None:
    async def scenario() -> None:
        async with bench() as on:

            async def container_ends() -> None:
                next(iter(on.driver.containers.values())).end(Exit(1))
                await settle()
                raise NotStarted("another node has it")

            await on.agent.run(accepted(on), container_ends)
            await settle()
            assert on.agent.pool.containers["idle"] == 0
            assert (await on.agent.run(accepted(on))).error is None
            assert on.driver.counts.prepared == 2

    run(scenario())


@FORMATS
def test_a_call_is_not_running_before_it_was_taken_over(format_name: str) -> None:
    async def scenario() -> None:
        async with bench(images={"obey": Script(main=OBEDIENT if format_name == "json" else at_once)}) as on:
            call = accepted(on, format_name)
            running = on.agent.stats

            async def take_over() -> None:
                assert (call.record.status, call.is_queued, call.started) == ("", True, False)
                assert (running.total.queue, running.total.running) == (1, 0)
                assert sum(on.agent.pool.containers[state] for state in ("idle", "busy")) == 1
                asyncio.get_running_loop().call_soon(check_running)

            def check_running() -> None:
                assert (call.record.status, call.is_queued, call.started) == (RUNNING, False, True)
                checked.append(call)

            checked: list[ActiveCall] = []
            end = await on.agent.run(call, take_over)
            assert checked
            assert end.error is None
            assert end.is_stored
            assert end.ended is not None
            assert end.ended.call is call.record

    run(scenario())


def test_a_call_whose_container_is_gone_is_taken_over_once() -> None:
    async def scenario() -> None:
        async with bench() as on:
            await on.agent.run(accepted(on))
            await asyncio.sleep(WATCH_S)
            taken_over: list[int] = []

            async def take_over() -> None:
                taken_over.append(on.driver.counts.prepared)
                for container in on.driver.containers.values():
                    container.end(Exit(0))
                await settle()

            end = await on.agent.run(accepted(on), take_over)
            assert (end.error, taken_over, on.driver.counts.prepared) == (None, [1], 2)

    run(scenario())


def test_a_call_that_is_taken_over_for_longer_than_its_timeout_gives_its_container_back() -> None:
    async def scenario() -> None:
        async with bench() as on:
            call = accepted(on, timeout=2)
            end = await on.agent.run(call, lambda: asyncio.sleep(3))
            assert isinstance(end.error, ServerBusy)
            assert on.clock.monotonic() == pytest.approx(2, abs=0.1)
            assert (end.ended, call.record.response_status) == (None, 0)
            await asyncio.sleep(WATCH_S)
            assert on.agent.pool.containers["idle"] == 1

    run(scenario())


def test_an_abort_while_a_call_is_taken_over_leaves_it_in_the_queue() -> None:
    async def scenario() -> None:
        async with bench() as on:
            asyncio.get_running_loop().call_later(1, on.agent.abort)
            end = await on.agent.run(accepted(on), lambda: asyncio.sleep(5))
            assert isinstance(end.error, ServerBusy)
            assert (end.ended, on.records.ended, on.agent.stats.total.failed) == (None, [], 0)

    run(scenario())


def test_a_call_that_is_late_and_whose_client_leaves_at_once_is_cancelled() -> None:
    async def scenario() -> None:
        async with bench() as on:
            call = on.call(on.function(timeout=2), sleep=9)
            task = asyncio.ensure_future(on.agent.run(call))
            asyncio.get_running_loop().call_at(2, task.cancel)
            await asyncio.wait([task])
            assert task.cancelled() == (on.statuses() == ["error"])
            assert not task.cancelled() or task.cancelling() == 1

    run(scenario())


def test_a_call_is_run_once() -> None:
    async def scenario() -> None:
        async with bench() as on:
            call = on.call(on.function(), echo="x")
            await on.agent.run(call)
            with pytest.raises(InvalidTransition):
                await on.agent.run(call)
            for step in (call.submit, lambda: call.start(0.0), call.wait_again, lambda: call.end(0.0, FAILED, 500)):
                with pytest.raises(InvalidTransition):
                    step()
            assert on.agent.stats.total == CallCounts(complete=1)

    run(scenario())


def test_an_agent_closes_once_and_never_opens_again() -> None:
    life = AgentLife()
    for state in (AgentState.DRAINING, AgentState.ABORTING, AgentState.CLOSED):
        life.enter(state)
    with pytest.raises(InvalidTransition):
        life.enter(AgentState.OPEN)


def test_draining_and_aborting_again_changes_nothing() -> None:
    async def scenario() -> None:
        async with bench() as on:
            for stop in (on.agent.drain, on.agent.drain, on.agent.abort, on.agent.abort, on.agent.drain):
                stop()
            with pytest.raises(ServerBusy):
                await on.ask(on.function())
        on.agent.abort()
        assert "closed" in repr(on.agent)

    run(scenario())
