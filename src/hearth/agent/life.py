"""The states of a container, hot or cold, and who is told of a change.

::

    WAIT (memory, CPU, a start permit) -> START (prepare, start) -> IDLE (slot offered) <-> BUSY (slot leased)
      any state -> DONE (removed, reservation returned)
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final


class ContainerState(enum.Enum):
    """Where a container stands; agent specification 8."""

    WAIT = "wait"
    START = "start"
    IDLE = "idle"
    BUSY = "busy"
    DONE = "done"


_NEXT: Final = {
    ContainerState.WAIT: frozenset({ContainerState.START, ContainerState.DONE}),
    ContainerState.START: frozenset({ContainerState.IDLE, ContainerState.BUSY, ContainerState.DONE}),
    ContainerState.IDLE: frozenset({ContainerState.BUSY, ContainerState.DONE}),
    ContainerState.BUSY: frozenset({ContainerState.IDLE, ContainerState.DONE}),
    ContainerState.DONE: frozenset[ContainerState](),
}

#: Told of every change: the state left and the state entered (``None``: the container is new).
Observer = Callable[[ContainerState | None, ContainerState], None]


class InvalidTransition(RuntimeError):
    """A change that the table does not list: a bug of ours, never a condition."""


class ContainerLife:
    """One container's state. Gauges hang on the observer, so that they cannot disagree with the truth."""

    __slots__ = ("_observe", "_state")

    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._state = ContainerState.WAIT
        observe(None, self._state)

    def __repr__(self) -> str:
        return f"<ContainerLife {self._state.value}>"

    @property
    def state(self) -> ContainerState:
        """The present state."""
        return self._state

    def enter(self, state: ContainerState) -> None:
        """Change state; the only assignment to it.

        Raises:
            InvalidTransition: The table does not list this change.
        """
        if state not in _NEXT[self._state]:
            raise InvalidTransition(f"{self._state.value} -> {state.value}")
        self._observe(self._state, state)
        self._state = state


class ContainerCounts:
    """How many containers are in each state now; ``done`` only grows."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(ContainerState, 0)

    def __repr__(self) -> str:
        return f"<ContainerCounts {self.snapshot()}>"

    def observe(self, left: ContainerState | None, entered: ContainerState) -> None:
        """Take one change."""
        if left is not None:
            self._counts[left] -= 1
        self._counts[entered] += 1

    def snapshot(self) -> dict[str, int]:
        """Counts by the state's name."""
        return {state.value: count for state, count in self._counts.items()}
