"""Ways to serve requests for memory, to be compared with the one that the agent has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hearth.agent.resources import ResourceTracker


class OneAtATime(ResourceTracker):
    """The agent's order, and room is made for the next request only."""

    room_for = 1


ORDERS: Final[dict[str, Callable[..., ResourceTracker]]] = {
    "arrival": ResourceTracker,
    "arrival, room for one": OneAtATime,
}
