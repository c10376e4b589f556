"""The load of a simulation: functions and their calls, drawn from a seed; the same for every order that is compared."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from typing import Final

from hearth.models.function import ASYNC, HTTP, JSON, SYNC
from hearth.models.route import Route

#: Memory of functions, MiB, and how many of a hundred functions have it.
SIZES: Final = {64: 40, 128: 35, 256: 15, 512: 8, 1024: 2}
_ASYNC_SHARE: Final = 0.1
_LONG_SHARE: Final = 0.01
#: Seconds that a call takes, on average, if it is no long one.
_SHORT_S: Final = 0.015
_BURST_EVERY_S: Final = 0.25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is offered to the node.

    Attributes:
        rate: Calls per second, on average.
        warm_up_s: Seconds in which the rate grows from nothing; they are not reported.
        seconds: Seconds after that in which calls arrive at the full rate.
        memory_share: Memory of the node, as a share of what one container of every function needs.
        removal_s: Seconds until the memory of a container that ends is free.
        zipf: Exponent of the functions' popularity.
    """

    seed: int = 1
    functions: int = 1000
    rate: int = 10_000
    warm_up_s: float = 3.0
    seconds: float = 2.0
    memory_share: float = 0.6
    removal_s: float = 0.005
    zipf: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """One call: when it comes, of which function, how long it takes."""

    at: float
    function: int
    service_s: float


def routes(load: Load) -> list[Route]:
    """The functions. Popularity and size are independent."""
    draw = random.Random(f"functions {load.seed}")
    sizes = draw.choices(list(SIZES), list(SIZES.values()), k=load.functions)
    return [
        Route(
            app_name="simulation",
            path=f"/{number}",
            image="function",
            memory=memory,
            type=ASYNC if draw.random() < _ASYNC_SHARE else SYNC,
            format=draw.choice((HTTP, JSON)),
            timeout=draw.choice((4, 6, 10)),
            idle_timeout=30,
        )
        for number, memory in enumerate(sizes)
    ]


def arrivals(load: Load) -> list[Arrival]:
    """The calls, in order of time: a steady stream, and every quarter of a second a burst of one function."""
    draw = random.Random(f"calls {load.seed}")
    weights = [1 / (rank + 1) ** load.zipf for rank in range(load.functions)]
    cumulative = list(itertools.accumulate(weights))
    burst_size = int(load.rate * _BURST_EVERY_S / 10)
    end = load.warm_up_s + load.seconds
    stream = [
        Arrival(at, draw.choices(range(load.functions), cum_weights=cumulative)[0], _service_s(draw))
        for at in _poisson(draw, load.rate * 0.9, end)
        if draw.random() < at / load.warm_up_s
    ]
    bursts = [
        Arrival(load.warm_up_s + number * _BURST_EVERY_S, function, _SHORT_S)
        for number in range(int(load.seconds / _BURST_EVERY_S))
        for function in [draw.randrange(load.functions)]
        for _ in range(burst_size)
    ]
    return sorted(stream + bursts, key=lambda arrival: arrival.at)


def _poisson(draw: random.Random, rate: float, end: float) -> Iterator[float]:
    at = draw.expovariate(rate)
    while at < end:
        yield at
        at += draw.expovariate(rate)


def _service_s(draw: random.Random) -> float:
    """Mostly short, some a hundred times as long."""
    return draw.uniform(0.5, 3.0) if draw.random() < _LONG_SHARE else draw.expovariate(1 / _SHORT_S)
