"""Streams a countdown as server-sent events: {"start": 3}."""

import dataclasses

from hearth_fdk import Event, function, sse


@dataclasses.dataclass
class Countdown:
    start: int = 3


def ticks(start: int):
    """Yield what becomes one event each."""
    for left in range(start, 0, -1):
        yield {"left": left}
    yield Event("liftoff", event="end")


@function
def countdown(order: Countdown) -> object:
    return sse(ticks(order.start))
