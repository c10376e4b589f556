"""Spans: how long each step takes (operations specification 3).

``with tracing.span("ds_get_app"): ...``. The duration of every finished span goes to
``fn_span_<name>_duration_seconds``. Where a collector is set, the node has a
:class:`~hearth.telemetry.spans.ExportingTracing` instead, whose spans know their parents and are exported.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from hearth.telemetry import names
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.series import Histogram, Timed


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
        return Timed(lambda: [self.histogram(step.name).series(step.app, step.path) for step in steps])

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


class Steps(Protocol):
    """Spans that start and end together, each within those before it. Created once for what happens often.

    The walk of a call begins and ends them, because an object for each step would cost as much as the step::

        started = steps.begin()
        try:
            ...
        finally:
            steps.end(started)

    Others write ``with during(steps): ...``.
    """

    @property
    def begin(self) -> Callable[[], Any]:
        """Return what starts them, and returns what :meth:`end` needs."""

    def end(self, started: Any, error: BaseException | None = None) -> None:
        """End them.

        Args:
            started: What ``begin()`` has returned.
            error: Why they end, if that is not an exception that is being handled.
        """


@contextlib.contextmanager
def during(steps: Steps) -> Iterator[None]:
    """Start the steps, and end them."""
    started = steps.begin()
    try:
        yield
    finally:
        steps.end(started)
