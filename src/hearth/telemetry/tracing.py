"""Spans: how long each step takes, and, where a collector is set, which request caused it (operations specification 3).

``with span("ds_get_app"): ...``. The duration of every finished span goes to ``fn_span_<name>_duration_seconds``,
whether or not a collector is set. Only with one (:func:`install`) do spans know their parents, and are exported.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, NamedTuple, Protocol

from hearth.telemetry import metrics, names


class Relation(enum.Enum):
    """What a new span is to the present one."""

    CHILD = "child"
    FOLLOWS = "follows"
    """Caused by it, and outlives it."""
    ROOT = "root"
    """Nothing: it begins a trace of its own."""


class Live(Protocol):
    """A span that will be exported when it ends."""

    def tag(self, key: str, value: str) -> None:
        """Tell more of it."""

    def end(self, error: BaseException | None) -> None:
        """It is over."""


class Tracer(Protocol):
    """Makes spans that are exported."""

    def start(self, name: str, app: str, path: str, relation: Relation, present: Live | None) -> Live:
        """A new span; ``present`` is the one that runs now."""

    def serve(self, name: str, url_path: str, headers: Iterable[tuple[bytes, bytes]]) -> Live:
        """The span of a request, which goes on with the trace that its headers tell of."""

    def inject(self, present: Live, headers: MutableMapping[str, str]) -> None:
        """Tell a server of the present span."""


class span:
    """One step. Either enter and leave it in one task; or :meth:`begin` and :meth:`end` it, whoever does that.

    Args:
        name: Of the specification's list; names the metric, too.
        app: The app it works for, if it does for one.
        path: The route it works for.
        relation: To the span that runs when this one begins.
        is_present: What begins within it is its child; else, that of the span around it.
    """

    __slots__ = ("_app", "_begun", "_is_present", "_live", "_name", "_path", "_relation", "_token")

    def __init__(
        self,
        name: str,
        app: str = "",
        path: str = "",
        *,
        relation: Relation = Relation.CHILD,
        is_present: bool = True,
    ) -> None:
        self._name = name
        self._app = app
        self._path = path
        self._relation = relation
        self._is_present = is_present
        self._live: Live | None = None

    def __enter__(self) -> span:
        if _tracer is not None:
            self._live = self._start(_tracer)
            if self._is_present:
                self._token: Token[Live | None] = _present.set(self._live)
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            if self._is_present:
                _present.reset(self._token)
            self.end(error)
            return
        # The same as end(), without one more call: several of these belong to every call of a function.
        spread = _spreads.get((self._name, self._app, self._path))
        if spread is None:
            self.end(error)
        else:
            spread.observe(time.perf_counter() - self._begun)

    def begin(self) -> span:
        """Begin it, without being the present one."""
        if _tracer is not None:
            self._live = self._start(_tracer)
        self._begun = time.perf_counter()
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End what was begun."""
        key = (self._name, self._app, self._path)
        spread = _spreads.get(key)
        if spread is None:
            spread = _spreads[key] = _histogram(self._name).series(self._app, self._path)
        spread.observe(time.perf_counter() - self._begun)
        if self._live is not None:
            self._live.end(error)

    def label(self, app: str, path: str = "") -> None:
        """Whom it works for, once that is known. Only for what exists: each pair is a series of its own."""
        self._app, self._path = app, path
        if self._live is not None:
            self._live.tag("fn_appname", app)
            if path:
                self._live.tag("fn_path", path)

    def _start(self, tracer: Tracer) -> Live:
        return tracer.start(self._name, self._app, self._path, self._relation, _present.get())


class Step(NamedTuple):
    """A span that is not begun yet; see :class:`span`."""

    name: str
    app: str = ""
    path: str = ""
    relation: Relation = Relation.CHILD
    is_present: bool = True


class Steps:
    """Spans that begin and end together, each within those before it: ``with steps(): ...``.

    Made ready once for what happens often: several belong to every call of a function.
    """

    __slots__ = ("_spreads", "steps")

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self._spreads: list[metrics.Spread] | None = None

    def __call__(self) -> _Taken:
        """Once more."""
        return _Taken(self)

    def observe(self, seconds: float) -> None:
        """They have lasted so long."""
        if self._spreads is None:
            self._spreads = [_histogram(step.name).series(step.app, step.path) for step in self.steps]
        for spread in self._spreads:
            spread.observe(seconds)


class _Taken:
    __slots__ = ("_begun", "_lives", "_steps")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._lives: contextlib.ExitStack | None = None

    def __enter__(self) -> None:
        if _tracer is not None:
            self._lives = contextlib.ExitStack()
            for name, app, path, relation, is_present in self._steps.steps:
                self._lives.enter_context(span(name, app, path, relation=relation, is_present=is_present))
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lives is None:
            self._steps.observe(time.perf_counter() - self._begun)
        else:
            self._lives.__exit__(kind, error, traceback)


class serving(span):
    """The span of a request.

    Args:
        url_path: Of the request.
        headers: Which may tell of a trace to go on with.
    """

    __slots__ = ("_headers", "_url_path")

    def __init__(self, url_path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__("serve_http")
        self._url_path = url_path
        self._headers = headers

    def _start(self, tracer: Tracer) -> Live:
        return tracer.serve(self._name, self._url_path, self._headers)


def inject(headers: MutableMapping[str, str]) -> None:
    """Add what tells a server of the present span to a request's headers; nothing where nothing is exported."""
    present = _present.get()
    if _tracer is not None and present is not None:
        _tracer.inject(present, headers)


def forget(app: str, path: str) -> None:
    """Let go of the histograms of an app and a path: before :func:`hearth.telemetry.metrics.forget`."""
    for key in [key for key in _spreads if key[1:] == (app, path)]:
        del _spreads[key]


def install(tracer: Tracer | None) -> None:
    """Have spans exported from now on; ``None``: no longer."""
    global _tracer
    _tracer = tracer


def _histogram(name: str) -> metrics.Histogram:
    return metrics.histogram(names.of_span(name), help_text=f"Span {name} duration, by span name")


_tracer: Tracer | None = None
_present: Final[ContextVar[Live | None]] = ContextVar("present span", default=None)
_spreads: Final[dict[tuple[str, str, str], metrics.Spread]] = {}
