"""The loop of simulations: timers fire in order, time jumps, a deadlock is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.support.virtual_time import Deadlock, VirtualClock, VirtualLoop


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def test_timers_fire_in_order_of_their_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop, fired = asyncio.get_running_loop(), list[tuple[str, float]]()
        for name, when in [("c", 7200.0), ("a", 0.5), ("d", 7201.0), ("b", 3.0)]:
            loop.call_at(when, lambda name: fired.append((name, loop.time())), name)
        loop.call_at(1.0, fired.append, ("cancelled", 1.0)).cancel()
        await asyncio.sleep(10_000)
        return fired

    assert run(main()) == [("a", 0.5), ("b", 3.0), ("c", 7200.0), ("d", 7201.0)]


def test_time_stands_still_while_somebody_can_run() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.0


def test_limits_end_waits_at_their_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == 60.0


def test_the_clock_follows_the_loop() -> None:
    async def main() -> None:
        clock = VirtualClock()
        begun, begun_ms, fired = clock.now(), clock.now_ms(), asyncio.Event()
        clock.call_at(clock.monotonic() + 90.0, fired.set)
        await fired.wait()
        assert (clock.now() - begun).total_seconds() == 90.0
        assert (clock.now_ms() - begun_ms, clock.monotonic()) == (90_000, 90.0)

    run(main())


def test_a_deadlock_is_told_and_does_not_hang() -> None:
    async def main() -> None:
        task = asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="waits for ever")
        await task

    with pytest.raises(Deadlock, match=r"nothing is scheduled at 0 s, .*waits for ever"):
        run(main())
