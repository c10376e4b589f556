"""Whether a node should be sent work."""

from __future__ import annotations

import asyncio

from tests.support.virtual_time import VirtualClock, run

from hearth.models.errors import StoreUnavailable
from hearth.server.health import Readiness


class Dependency:
    """Something a node needs."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.hangs = False

    async def check(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure


def test_a_node_is_ready_while_all_it_needs_answers() -> None:
    async def scenario() -> None:
        database, driver = Dependency(), Dependency()
        readiness = Readiness(VirtualClock(), {"database": database.check, "driver": driver.check})
        assert await readiness.look() == (True, {"ready": True, "node": "ok", "database": "ok", "driver": "ok"})
        database.failure = StoreUnavailable("down for a while")
        await asyncio.sleep(1.1)
        ready, told = await readiness.look()
        assert not ready
        assert told == {"ready": False, "node": "ok", "database": "down for a while", "driver": "ok"}
        database.failure = None
        await asyncio.sleep(1.1)
        assert (await readiness.look())[0]

    run(scenario())


def test_what_hangs_is_not_waited_for_long() -> None:
    async def scenario() -> None:
        driver = Dependency()
        driver.hangs = True
        ready, told = await Readiness(VirtualClock(), {"driver": driver.check}).look()
        assert (ready, told["driver"]) == (False, "no answer within 2 s")

    run(scenario())


def test_many_who_ask_cost_one_look_a_second() -> None:
    async def scenario() -> None:
        database = Dependency()
        readiness = Readiness(VirtualClock(), {"database": database.check})
        await asyncio.gather(*[readiness.look() for _ in range(50)])
        assert database.asked == 1
        await asyncio.sleep(1.1)
        await readiness.look()
        assert database.asked == 2

    run(scenario())


def test_a_draining_node_is_not_ready_at_once() -> None:
    async def scenario() -> None:
        database = Dependency()
        readiness = Readiness(VirtualClock(), {"database": database.check})
        assert (await readiness.look())[0]
        readiness.drain()
        assert await readiness.look() == (False, {"ready": False, "node": "draining"})
        assert database.asked == 1

    run(scenario())
