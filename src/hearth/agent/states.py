"""The states of an agent, a container and a call, and who observes a change.

An agent::

    OPEN (takes calls) -> DRAINING (running calls finish) -> CLOSED
      DRAINING -> ABORTING (running calls were cancelled) -> CLOSED

A container, hot or cold, as metrics and the launcher count it::

    WAIT (memory, CPU, a start permit) -> START (prepare, start) -> IDLE (slot offered) <-> BUSY (slot leased)
      any state -> DONE (removed, reservation returned)

The stages of a container's life in detail, and how each counts. A cold container has five of them::

    WAIT    WAIT     -> START
    START   START    -> CHECK, IDLE, REMOVE         being made
    CHECK   START    -> START                       its image may have been built again: looks before it serves
    IDLE    IDLE     -> BUSY, REMOVE                its slot is offered
    BUSY    BUSY     -> IDLE, SETTLE, LAST, REMOVE  its slot is leased
    SETTLE  BUSY     -> IDLE, LAST                  offered again once its output is quiet
    LAST    BUSY     -> REMOVE                      retired: takes no call after the one that runs, or settles
    REMOVE  as left  -> DONE                        being removed
    DONE    DONE                                    any stage may lead here

A call::

    WAIT (for a slot) -> EXEC (its exchange runs) -> DONE
      WAIT -> DONE: it gave up, or was refused; EXEC -> WAIT: its container was gone before a byte was handed over
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from hearth.aio.clock import Clock
from hearth.telemetry.series import Series, Spread


class ContainerState(enum.Enum):
    """The states of a container; agent specification 8."""

    WAIT = "wait"
    START = "start"
    IDLE = "idle"
    BUSY = "busy"
    DONE = "done"

    __hash__ = object.__hash__  # a member is equal to itself only, and Python's own is slow


class Stage(enum.Enum):
    """The stages of a container's life; see the table above."""

    WAIT = "wait"
    START = "start"
    CHECK = "check"
    IDLE = "idle"
    BUSY = "busy"
    SETTLE = "settle"
    LAST = "last"
    REMOVE = "remove"
    DONE = "done"

    __hash__ = object.__hash__  # a member is equal to itself only, and Python's own is slow


class AgentState(enum.Enum):
    """The life of an agent."""

    OPEN = "open"  # it takes calls
    DRAINING = "draining"  # it takes none; calls that run finish
    ABORTING = "aborting"  # calls that ran were cancelled
    CLOSED = "closed"  # nothing is left


class CallState(enum.Enum):
    """The states of a call; agent specification 8."""

    WAIT = "wait"
    EXEC = "exec"
    DONE = "done"

    __hash__ = object.__hash__  # a member is equal to itself only, and Python's own is slow


_STAGES: Final[Mapping[Stage, frozenset[Stage]]] = {
    Stage.WAIT: frozenset({Stage.START, Stage.DONE}),
    Stage.START: frozenset({Stage.CHECK, Stage.IDLE, Stage.REMOVE, Stage.DONE}),
    Stage.CHECK: frozenset({Stage.START, Stage.DONE}),
    Stage.IDLE: frozenset({Stage.BUSY, Stage.REMOVE, Stage.DONE}),
    Stage.BUSY: frozenset({Stage.IDLE, Stage.SETTLE, Stage.LAST, Stage.REMOVE, Stage.DONE}),
    Stage.SETTLE: frozenset({Stage.IDLE, Stage.LAST, Stage.DONE}),
    Stage.LAST: frozenset({Stage.REMOVE, Stage.DONE}),
    Stage.REMOVE: frozenset({Stage.DONE}),
    Stage.DONE: frozenset(),
}
#: How each stage counts; ``None``: as the one before.
_COUNTED: Final[Mapping[Stage, ContainerState | None]] = {
    Stage.WAIT: ContainerState.WAIT,
    Stage.START: ContainerState.START,
    Stage.CHECK: ContainerState.START,
    Stage.IDLE: ContainerState.IDLE,
    Stage.BUSY: ContainerState.BUSY,
    Stage.SETTLE: ContainerState.BUSY,
    Stage.LAST: ContainerState.BUSY,
    Stage.REMOVE: None,
    Stage.DONE: ContainerState.DONE,
}
#: From each stage, those that may follow, with how they count.
_CHANGES: Final = {stage: {after: _COUNTED[after] for after in _STAGES[stage]} for stage in Stage}
_AGENT: Final[Mapping[AgentState, frozenset[AgentState]]] = {
    AgentState.OPEN: frozenset({AgentState.DRAINING}),
    AgentState.DRAINING: frozenset({AgentState.ABORTING, AgentState.CLOSED}),
    AgentState.ABORTING: frozenset({AgentState.CLOSED}),
    AgentState.CLOSED: frozenset(),
}
#: From each state of a call, the states that may follow; ``None``: it was not submitted.
CALL_STATES: Final[Mapping[CallState | None, frozenset[CallState]]] = {
    None: frozenset({CallState.WAIT}),
    CallState.WAIT: frozenset({CallState.EXEC, CallState.DONE}),
    CallState.EXEC: frozenset({CallState.WAIT, CallState.DONE}),
    CallState.DONE: frozenset(),
}


class InvalidTransition(RuntimeError):
    """A change that the table does not list: a bug of ours, never a condition."""


class AgentLife:
    """The state of an agent.

    Attributes:
        state: The present state; changed by :meth:`enter` only.
    """

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = AgentState.OPEN

    def __repr__(self) -> str:
        return f"<AgentLife {self.state.value}>"

    def enter(self, state: AgentState) -> None:
        """Change state; the only assignment to it.

        Raises:
            InvalidTransition: The table does not list this change.
        """
        if state not in _AGENT[self.state]:
            raise InvalidTransition(f"{self.state.value} -> {state.value}")
        self.state = state


class ContainerCounts(dict[ContainerState, int]):
    """The number of containers in each state now; ``DONE`` only grows."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(ContainerState, 0))

    def __repr__(self) -> str:
        return f"<ContainerCounts {self.snapshot()}>"

    def snapshot(self) -> dict[str, int]:
        """Return the counts by the state's name."""
        return {state.value: count for state, count in self.items()}


class ContainerLife:
    """The stage of one container. The counts and the metrics change with it, so that they cannot disagree with it.

    Args:
        counts: The counts that it is a part of.
        series: The metrics of its function's containers: how many are in each state, and for how long each was.

    Attributes:
        stage: The present stage; changed by :meth:`enter` only.
        state: How the container counts at present.
        since: Loop time at which it began to count so.
    """

    __slots__ = ("_counts", "_now", "_series", "_shown", "since", "stage", "state")

    def __init__(
        self, clock: Clock, counts: ContainerCounts, series: Mapping[ContainerState, tuple[Series, Spread | None]]
    ) -> None:
        self._now = clock.monotonic
        self._counts = counts
        self._series = series
        self._shown = series[ContainerState.WAIT]
        self.stage = Stage.WAIT
        self.state = ContainerState.WAIT
        self.since = clock.monotonic()
        counts[self.state] += 1
        self._shown[0].value += 1

    def __repr__(self) -> str:
        return f"<ContainerLife {self.stage.value}>"

    def enter(self, stage: Stage) -> None:
        """Change the stage; the only assignment to it.

        Raises:
            InvalidTransition: The table does not list this change.
        """
        changes = _CHANGES[self.stage]
        if stage not in changes:
            raise InvalidTransition(f"{self.stage.value} -> {stage.value}")
        self.stage = stage
        left, entered = self.state, changes[stage]
        if entered is None or entered is left:
            return
        counts, now = self._counts, self._now()
        counts[left] -= 1
        counts[entered] += 1
        number, lasted = self._shown
        number.value -= 1
        if lasted is not None:
            lasted.observe(now - self.since)
        self._shown = shown = self._series[entered]
        shown[0].value += 1
        self.state = entered
        self.since = now
