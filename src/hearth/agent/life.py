"""The states of a container and of a call, and who is told of a change.

A container, hot or cold::

    WAIT (memory, CPU, a start permit) -> START (prepare, start) -> IDLE (slot offered) <-> BUSY (slot leased)
      any state -> DONE (removed, reservation returned)

A call::

    WAIT (for a slot) -> EXEC (its exchange runs) -> DONE
      WAIT -> DONE: it gave up, or was refused; EXEC -> WAIT: its container was gone before a byte was handed over
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar


class ContainerState(enum.Enum):
    """Where a container stands; agent specification 8."""

    WAIT = "wait"
    START = "start"
    IDLE = "idle"
    BUSY = "busy"
    DONE = "done"

    __hash__ = object.__hash__  # a member is equal to itself only, and Python's own is slow


class CallState(enum.Enum):
    """Where a call stands; agent specification 8."""

    WAIT = "wait"
    EXEC = "exec"
    DONE = "done"

    __hash__ = object.__hash__  # a member is equal to itself only, and Python's own is slow


S = TypeVar("S", bound=enum.Enum)

_CONTAINER: Final[Mapping[ContainerState, frozenset[ContainerState]]] = {
    ContainerState.WAIT: frozenset({ContainerState.START, ContainerState.DONE}),
    ContainerState.START: frozenset({ContainerState.IDLE, ContainerState.DONE}),
    ContainerState.IDLE: frozenset({ContainerState.BUSY, ContainerState.DONE}),
    ContainerState.BUSY: frozenset({ContainerState.IDLE, ContainerState.DONE}),
    ContainerState.DONE: frozenset(),
}
_CALL: Final[Mapping[CallState, frozenset[CallState]]] = {
    CallState.WAIT: frozenset({CallState.EXEC, CallState.DONE}),
    CallState.EXEC: frozenset({CallState.WAIT, CallState.DONE}),
    CallState.DONE: frozenset(),
}

#: Told of every change: the state left and the state entered (``None``: the container is new).
Observer = Callable[[ContainerState | None, ContainerState], None]
#: The same of calls.
CallObserver = Callable[[CallState | None, CallState], None]


class InvalidTransition(RuntimeError):
    """A change that the table does not list: a bug of ours, never a condition."""


class Life(Generic[S]):
    """The state of one thing. Gauges hang on the observer, so that they cannot disagree with the truth.

    Args:
        table: From each state, the states that may follow.
        first: The state in which it is born.
        observe: Told of every change, the birth included.
    """

    __slots__ = ("_observe", "_state", "_table")

    def __init__(self, table: Mapping[S, frozenset[S]], first: S, observe: Callable[[S | None, S], None]) -> None:
        self._table = table
        self._observe = observe
        self._state = first
        observe(None, first)

    def __repr__(self) -> str:
        return f"<Life {self._state.value}>"

    @property
    def state(self) -> S:
        """The present state."""
        return self._state

    def enter(self, state: S) -> None:
        """Change state; the only assignment to it.

        Raises:
            InvalidTransition: The table does not list this change.
        """
        if state not in self._table[self._state]:
            raise InvalidTransition(f"{self._state.value} -> {state.value}")
        left, self._state = self._state, state
        self._observe(left, state)


def container_life(observe: Observer) -> Life[ContainerState]:
    """The life of a new container."""
    return Life(_CONTAINER, ContainerState.WAIT, observe)


def call_life(observe: CallObserver) -> Life[CallState]:
    """The life of a call that was just submitted."""
    return Life(_CALL, CallState.WAIT, observe)


class ContainerCounts:
    """How many containers are in each state now; ``done`` only grows."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(ContainerState, 0)

    def __repr__(self) -> str:
        return f"<ContainerCounts {self.snapshot()}>"

    def __getitem__(self, state: ContainerState) -> int:
        return self._counts[state]

    def observe(self, left: ContainerState | None, entered: ContainerState) -> None:
        """Take one change."""
        if left is not None:
            self._counts[left] -= 1
        self._counts[entered] += 1

    def snapshot(self) -> dict[str, int]:
        """Counts by the state's name."""
        return {state.value: count for state, count in self._counts.items()}
