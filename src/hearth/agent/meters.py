"""Calls and containers as metrics (operations specification 2): they hang on changes of state, so none disagree."""

from __future__ import annotations

import enum
from typing import Final

from hearth.agent.life import ContainerState, Observer
from hearth.clock import Clock
from hearth.drivers.base import StatsSample
from hearth.models.route import Route
from hearth.telemetry import metrics

_LEFT: Final[dict[ContainerState, metrics.Histogram]] = {
    state: metrics.histogram(f"fn_container_{state.value}_duration_seconds")
    for state in ContainerState
    if state is not ContainerState.DONE
}
_NOW: Final[dict[ContainerState, metrics.Value]] = {
    state: metrics.gauge(f"fn_container_{state.value}_total") for state in ContainerState
}


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

    __slots__ = ("busy", "calls", "completed", "errors", "failed", "queued", "running", "timeouts")

    def __init__(self, app: str, path: str) -> None:
        self.calls = metrics.counter("fn_calls").series(app, path)
        self.queued = metrics.gauge("fn_queued").series(app, path)
        self.running = metrics.gauge("fn_running").series(app, path)
        self.completed = metrics.counter("fn_completed").series(app, path)
        self.failed = metrics.counter("fn_failed").series(app, path)
        self.timeouts = metrics.counter("fn_timeouts").series(app, path)
        self.errors = metrics.counter("fn_errors").series(app, path)
        self.busy = metrics.counter("fn_server_busy").series(app, path)


class ContainerMeter:
    """Watches one container: which state it is in, and for how long it was in the one that it leaves.

    Args:
        observe: Told of every change as well.
    """

    __slots__ = ("_clock", "_labels", "_observe", "_since", "_state", "_states")

    def __init__(self, route: Route, clock: Clock, observe: Observer) -> None:
        self._labels = route.app_name, route.path
        self._states: dict[ContainerState, tuple[metrics.Series, metrics.Spread | None]] = {}
        self._state: tuple[metrics.Series, metrics.Spread | None] | None = None
        self._clock = clock
        self._observe = observe
        self._since = clock.monotonic()

    def __call__(self, left: ContainerState | None, entered: ContainerState) -> None:
        """Take one change."""
        now = self._clock.monotonic()
        if self._state is not None:
            present, lasted = self._state
            present.value -= 1
            if lasted is not None:
                lasted.observe(now - self._since)
        state = self._states.get(entered)
        if state is None:
            lasts = _LEFT[entered].series(*self._labels) if entered in _LEFT else None
            state = self._states[entered] = _NOW[entered].series(*self._labels), lasts
        state[0].value += 1
        self._state = state
        self._since = now
        self._observe(left, entered)


def export_sample(sample: StatsSample, route: Route) -> None:
    """What a container uses, whether or not a call runs in it; unreduced."""
    for name, value in sample.metrics.items():
        metrics.histogram(f"fn_docker_stats_fn_{name}").observe(value, route.app_name, route.path)
