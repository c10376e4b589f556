"""A node that drains while containers go away."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.agent import Bench, Body, bench, settle
from tests.support.virtual_time import run

from hearth.drivers.base import Exit
from hearth.models.errors import ServerBusy


def test_a_call_whose_container_went_away_during_the_drain_does_not_wait_for_another() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(timeout=120)
        await on.ask(function)
        body = Body(open_end=True, length=2)
        task = asyncio.ensure_future(on.agent.submit(on.call(function, body=body)))
        await settle()  # it holds the idle container, and waits for its client
        on.agent.drain()
        (container,) = on.driver.containers.values()
        container.end(Exit(code=0))
        body.put(b"{}")
        body.put(b"")
        begun = on.clock.monotonic()
        with pytest.raises(ServerBusy):
            await task
        assert on.clock.monotonic() == begun

    async def whole() -> None:
        async with bench() as on:
            await scenario(on)

    run(whole())
