"""Compare scaling policies: the real agent on a model of two processors that have no time left, in virtual time.

``python -m bench.scaling`` prints a table, the same each time. Sixty clients call one function for five seconds,
one call after another, then twenty calls come at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any, Final

import structlog
from tests.support.agent import OBEDIENT, bench
from tests.support.processors import CLIENTS, Processors, under_load
from tests.support.virtual_time import run

from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.simple import SimplePolicy
from hearth.models.errors import ServerBusy
from hearth.models.function import Amount
from hearth.testing.script import Script, Step

POLICIES: Final[dict[str, ScalingPolicy]] = {
    "adaptive": AdaptivePolicy(),
    "simple": SimplePolicy(),
    "adaptive, delay 0.05 s": AdaptivePolicy(start_delay_s=0.05),
    "simple, delay 0.05 s": SimplePolicy(start_delay_s=0.05),
}
LOADS: Final[dict[str, dict[str, float]]] = {
    "computes for 1 ms": {"burn": 0.001},
    "computes for 10 ms": {"burn": 0.01},
    "computes for 100 ms": {"burn": 0.1},
    "waits for 100 ms": {"wait": 0.1},
    "waits for 1 s": {"wait": 1.0},
}
_SECONDS: Final = 5.0
_PROCESSORS: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The figures of one load: calls per second, and containers that were started."""

    rate: float
    started: int

    def __str__(self) -> str:
        return f"{self.rate:.0f} / {self.started}"


@dataclasses.dataclass(frozen=True, slots=True)
class Burst:
    """The figures of a burst: calls answered 503, and seconds until the last answer."""

    refused: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.refused} / {self.seconds:.2f}"


def under_steady_load(scaling: ScalingPolicy, orders: dict[str, float]) -> Found:
    """Return what sixty clients get."""

    async def play() -> Found:
        images = {"obey": Processors(asyncio.Semaphore(_PROCESSORS)).image()}
        async with bench(images=images, **_options(scaling)) as on:
            answered = await under_load(on, orders, _SECONDS)
            return Found(answered / _SECONDS, on.driver.counts.prepared)

    random.seed(1)
    return run(play())


def in_a_burst(scaling: ScalingPolicy) -> Burst:
    """Return what twenty calls of half a second get that may wait for one second, with memory for all."""

    async def play() -> Burst:
        images = {"obey": Script(main=OBEDIENT, start=Step(delay_s=0.1))}
        async with bench(Amount(2048, 100_000), images, **_options(scaling)) as on:
            function = on.function(memory=64, timeout=2)
            calls = [on.ask(function, sleep=0.5) for _ in range(20)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            return Burst(sum(isinstance(one, ServerBusy) for one in ended), on.clock.monotonic())

    random.seed(1)
    return run(play())


def _options(scaling: ScalingPolicy) -> dict[str, Any]:
    return {"max_starts": _PROCESSORS, "are_busy": lambda: True, "scaling": scaling}


def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(f"{CLIENTS} clients, {_PROCESSORS} processors; calls per second / containers started\n")
    print("| | " + " | ".join(POLICIES) + " |")
    print("|---" * (len(POLICIES) + 1) + "|")
    for name, orders in LOADS.items():
        print(f"| {name} | " + " | ".join(str(under_steady_load(one, orders)) for one in POLICIES.values()) + " |")
    bursts = " | ".join(str(in_a_burst(one)) for one in POLICIES.values())
    print(f"| burst of 20 calls: 503 / seconds | {bursts} |")


if __name__ == "__main__":
    main()
