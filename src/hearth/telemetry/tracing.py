"""Spans: how long each step takes (operations specification 3).

``with tracing.span("ds_get_app"): ...``. The duration of every finished span goes to
``fn_span_<name>_duration_seconds``. Where a collector is set, the node has a
:class:`~hearth.telemetry.spans.ExportingTracing` instead, whose spans know their parents and are exported.
"""

from __future__ import annotations

import bisect
import enum
import functools
import time
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

import msgspec

from hearth.telemetry import names
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import TIME_BUCKETS
from hearth.telemetry.series import Histogram, Spread


class Relation(enum.Enum):
    """The relation of a new span to the present one."""

    CHILD = "child"
    FOLLOWS = "follows"
    """Caused by it, and outlives it."""
    ROOT = "root"
    """None: it starts a trace of its own."""


class Tracing:
    """The spans of one node, which are only timed.

    Attributes:
        exports: Spans are more than durations: each has to be started and ended.
        histogram: Returns the histogram of the durations of a span, by its name.
    """

    exports: ClassVar[bool] = False

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.histogram = functools.cache(self._histogram)

    def span(
        self, name: str, app: str = "", path: str = "", *, relation: Relation = Relation.CHILD, is_present: bool = True
    ) -> Span:
        """Return a span that has not started.

        Args:
            name: One of ``names.SPANS``; also names the metric.
            app: The app it works for, if any.
            path: The route it works for, if any.
            relation: Its relation to the span that runs when it starts.
            is_present: Make it the parent of the spans within it.
        """
        return Span(self.histogram(name), app, path)

    def steps(self, *steps: Step) -> Steps:
        """Return spans that start and end together, each within those before it."""
        return functools.partial(
            _Timed, [], lambda: [self.histogram(step.name).series(step.app, step.path) for step in steps]
        )

    def serving(self, url_path: str, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        """Return the span of a request, which continues the trace in its headers."""
        return Span(self.histogram("serve_http"), "", "")

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Add the present span to the headers of a request; nothing if nothing is exported."""

    def _histogram(self, name: str) -> Histogram:
        return self._metrics.histogram(names.of_span(name), f"Span {name} duration, by span name")


class Span:
    """One step. Either enter and leave it in one task, or begin and end it anywhere."""

    __slots__ = ("_app", "_durations", "_path", "_started")

    def __init__(self, durations: Histogram, app: str, path: str) -> None:
        self._durations = durations
        self._app = app
        self._path = path

    def begin(self) -> Self:
        """Start it without making it the present one."""
        self._started = time.perf_counter()
        return self

    __enter__ = begin

    def end(self, error: BaseException | None = None) -> None:
        """End it."""
        self._durations.series(self._app, self._path).observe(time.perf_counter() - self._started)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def label(self, app: str, path: str = "") -> None:
        """Set the app and path once they are known. Only for what exists: each pair is a series of its own."""
        self._app, self._path = app, path


class Step(NamedTuple):
    """The arguments of :meth:`Tracing.span`."""

    name: str
    app: str = ""
    path: str = ""
    relation: Relation = Relation.CHILD
    is_present: bool = True


#: Starts spans that start and end together: ``with steps(): ...``. Created once for what happens often.
Steps = Callable[[], AbstractContextManager[None]]


class _Timed(msgspec.Struct):
    """Steps that run; a struct because every call creates five, and its constructor takes no call of Python's.

    Attributes:
        spreads: The series of their durations, shared by all who take these steps. Empty until the first ends: a series
            exists from its first value on.
        find: Returns the series.
    """

    spreads: list[Spread]
    find: Callable[[], list[Spread]]
    started: float = 0.0

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self.started
        if not self.spreads:
            self.spreads += self.find()
        bucket = bisect.bisect_left(TIME_BUCKETS, seconds)
        for spread in self.spreads:
            spread.counts[bucket] += 1
            spread.total += seconds
