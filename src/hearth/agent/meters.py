"""Calls and containers as metrics (operations specification 2): they hang on changes of state, so none disagree."""

from __future__ import annotations

import enum

from hearth.agent.states import ContainerState
from hearth.drivers.base import StatsSample
from hearth.models.function import FunctionRef
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import RESPONSES
from hearth.telemetry.series import Series, Spread


class Outcome(enum.Enum):
    """By which door a call leaves; exactly one."""

    COMPLETE = "complete"
    TIMED_OUT = "timed out"
    FAILED = "failed"
    BUSY = "busy"
    """It found no container in time; no failure of anybody."""
    NOT_RUN = "not run"
    """An async call that is somebody else's, or stays in the queue."""


class CallMeter:
    """The metrics of one function's calls."""

    __slots__ = ("busy", "calls", "completed", "errors", "failed", "queued", "responses", "running", "timeouts")

    def __init__(self, metrics: Metrics, ref: FunctionRef) -> None:
        self.calls = metrics.counter("fn_calls").series(*ref.labels)
        self.queued = metrics.gauge("fn_queued").series(*ref.labels)
        self.running = metrics.gauge("fn_running").series(*ref.labels)
        self.completed = metrics.counter("fn_completed").series(*ref.labels)
        self.failed = metrics.counter("fn_failed").series(*ref.labels)
        self.timeouts = metrics.counter("fn_timeouts").series(*ref.labels)
        self.errors = metrics.counter("fn_errors").series(*ref.labels)
        self.busy = metrics.counter("fn_server_busy").series(*ref.labels)
        self.responses = {first: metrics.counter(name).series(*ref.labels) for first, name in RESPONSES.items()}


class SlotMeter:
    """The part of one container in the gauges of its function's slots."""

    __slots__ = ("_free", "_mine", "_taken")

    def __init__(self, taken: Series, free: Series) -> None:
        self._taken = taken
        self._free = free
        self._mine = (0, 0)

    def set(self, taken: int, free: int) -> None:
        """Note how many of its slots calls hold, and how many they may take."""
        was_taken, was_free = self._mine
        self._taken.value += taken - was_taken
        self._free.value += free - was_free
        self._mine = (taken, free)


class ContainerSeries(dict[ContainerState, tuple[Series, Spread | None]]):
    """The metrics of one function's containers by state: how many are in it, and for how long each was.

    Those of a state exist from their first use.
    """

    __slots__ = ("_labels", "_metrics", "frozen")

    def __init__(self, metrics: Metrics, ref: FunctionRef) -> None:
        self._metrics = metrics
        self._labels = ref.labels
        self.frozen = metrics.gauge("hearth_containers_frozen").series(*ref.labels)

    def slots(self) -> SlotMeter:
        """Return what counts the slots of one of its containers that serve several calls at once."""
        taken, free = (
            self._metrics.gauge(f"hearth_slots_{state}").series(*self._labels) for state in ("taken", "free")
        )
        return SlotMeter(taken, free)

    def sample(self, sample: StatsSample) -> None:
        """Export the resource use of a container, whether or not a call runs in it; unreduced."""
        for name, value in sample.metrics.items():
            self._metrics.histogram(f"fn_docker_stats_fn_{name}").observe(value, *self._labels)

    def __missing__(self, state: ContainerState) -> tuple[Series, Spread | None]:
        now = self._metrics.gauge(f"fn_container_{state.value}_total").series(*self._labels)
        lasted = None
        if state is not ContainerState.DONE:
            name = f"fn_container_{state.value}_duration_seconds"
            lasted = self._metrics.histogram(name).series(*self._labels)
        self[state] = now, lasted
        return now, lasted
