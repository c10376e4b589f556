"""Listeners of calls whose clients leave at any moment: nothing that ran goes unseen, nothing is told twice."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.support.agent import OBEDIENT, bench, settle
from tests.support.sweep import CancelledAt
from tests.support.virtual_time import run

from hearth.agent.listeners import CallListener
from hearth.models.call import Call
from hearth.testing.script import Script, Step

IMAGES = {"slow": Script(start=Step(delay_s=0.3), main=OBEDIENT)}


class Slow(CallListener):
    """Takes its time on both sides of a call."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[Call] = []

    async def before_call(self, call: Call) -> None:
        self.before.append(call.id)
        await asyncio.sleep(0.2)

    async def after_call(self, call: Call) -> None:
        await asyncio.sleep(0.2)
        self.after.append(msgspec.structs.replace(call))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_whenever_a_client_leaves_what_began_is_told_once(late: bool, warm: bool) -> None:
    nth = 0
    cancelled = True
    while cancelled:
        nth += 1
        cancelled = run(_leave_at(nth, late=late, warm=warm))
    assert nth > 3


async def _leave_at(nth: int, *, late: bool, warm: bool) -> bool:
    """A call whose client leaves at its n-th wait; whether it came that far."""
    listener = Slow()
    async with bench(images=IMAGES, listeners=[listener]) as on:
        function = on.function(image="slow")
        if warm:
            await on.ask(function)
            listener.before.clear()
            listener.after.clear()
            on.records.ended.clear()
        call = on.call(function, echo="x", sleep=0.5)
        left = CancelledAt(on.agent.submit(call), nth, late=late)

        async def submitted() -> None:
            await left

        await asyncio.gather(asyncio.ensure_future(submitted()), return_exceptions=True)
        came_that_far = left.suspensions >= nth
    # The agent has been left: whatever was to be told, has been.
    recorded = [one.call.id for one in on.records.ended]
    told = [after.id for after in listener.after]
    assert told == recorded
    assert len(told) <= 1
    assert set(listener.before) <= set(told)  # what began is told of
    assert {after.status for after in listener.after} <= {"success", "error"}
    return came_that_far


def test_a_node_that_leaves_waits_for_its_listeners() -> None:
    async def scenario() -> None:
        listener = Slow()
        async with bench(listeners=[listener]) as on:
            asking = on.start(on.function(), echo="x")
            while not on.records.ended:
                await settle()
                await asyncio.sleep(0.01)
            assert listener.after == []
            on.agent.drain()
        assert [after.status for after in listener.after] == ["success"]
        assert await asking == "x"

    run(scenario())


def test_a_listener_that_hangs_does_not_keep_a_node() -> None:
    class Hanging(CallListener):
        async def after_call(self, call: Call) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        async with bench(listeners=[Hanging()]) as on:
            on.start(on.function(), echo="x")
            while not on.records.ended:
                await settle()
                await asyncio.sleep(0.01)
        await settle()

    run(scenario())
