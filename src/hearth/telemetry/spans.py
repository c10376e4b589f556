"""Spans that are exported (operations specification 3).

A call has nine of them. They are not spans of OpenTelemetry's tracer, which takes 8 us for each, but become its
``ReadableSpan`` when they end, for its processors. A span of a trace that its client does not want recorded is none.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind

from hearth.aio.clock import wall_ns
from hearth.telemetry.b3 import SAMPLED, read_b3, write_b3
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.series import Histogram
from hearth.telemetry.tracing import Relation, Span, Step, Steps, Tracing

SERVICE: Final = "fnserver"
#: The tag of a span whose parent does not wait for it, as OpenTracing names it.
FOLLOWS: Final = {"opentracing.ref_type": "follows_from"}

_SCOPE: Final = InstrumentationScope("hearth")
_RESOURCE: Final = Resource({"service.name": SERVICE})


class ExportingTracing(Tracing):
    """The spans of one node, which are timed and handed to processors when they end."""

    exports = True

    def __init__(self, metrics: Metrics, processors: Sequence[SpanProcessor]) -> None:
        super().__init__(metrics)
        self.processors = processors

    def span(
        self, name: str, app: str = "", path: str = "", *, relation: Relation = Relation.CHILD, is_present: bool = True
    ) -> ExportedSpan:
        """Return a span that has not started."""
        return self.of(Step(name, app, path, relation, is_present))

    def of(self, step: Step) -> ExportedSpan:
        """Return a span that has not started."""
        kind = SpanKind.CLIENT if step.name.startswith("hybrid_client_") else SpanKind.INTERNAL
        return ExportedSpan(self.processors, self.histogram(step.name), step, kind)

    def steps(self, *steps: Step) -> Steps:
        """Return spans that start and end together."""
        return ExportedSteps(self.of, steps)

    def serving(self, url_path: str, headers: Iterable[tuple[bytes, bytes]]) -> ExportedSpan:
        """Return the span of a request, which continues the trace in its headers."""
        return _Serving(self.processors, self.histogram("serve_http"), url_path, headers)

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Add the present span to the headers of a request."""
        if (present := _present.get()) is not None:
            present.inject(headers)


class ExportedSpan(Span):
    """A span that knows its parent.

    Attributes:
        context: Its trace and id.
        parent: Those of its parent.
        baggage: What its children inherit; never changed, because they share it.
    """

    context: SpanContext
    parent: SpanContext | None
    baggage: dict[str, str]

    __slots__ = ("_kind", "_processors", "_started_ns", "_step", "_tags", "_token", "baggage", "context", "parent")

    def __init__(self, processors: Sequence[SpanProcessor], durations: Histogram, step: Step, kind: SpanKind) -> None:
        super().__init__(durations, step.app, step.path)
        self._processors = processors
        self._step = step
        self._kind = kind
        self._tags: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.begin()
        if self._step.is_present:
            self._token: Token[ExportedSpan | None] = _present.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._step.is_present:
            _present.reset(self._token)
        self.end(error)

    def begin(self) -> Self:
        """Start it without making it the present one."""
        self._place(_present.get())
        self._started_ns = wall_ns()
        return super().begin()

    def end(self, error: BaseException | None = None) -> None:
        """End it, and hand it to the processors."""
        super().end(error)
        if not self.context.trace_flags.sampled:
            return
        if isinstance(error, Exception):
            self._tags["error"] = str(error) or type(error).__name__
        tags = {key: value for key, value in self.baggage.items() if key.startswith("fn")}
        links: Sequence[Link] = ()
        if self._step.relation is Relation.FOLLOWS and self.parent is not None:
            tags |= FOLLOWS
            links = [Link(self.parent)]
        ended = ReadableSpan(
            self._step.name,
            self.context,
            self.parent,
            _RESOURCE,
            tags | self._tags,
            links=links,
            kind=self._kind,
            start_time=self._started_ns,
            end_time=wall_ns(),
            instrumentation_scope=_SCOPE,
        )
        for processor in self._processors:
            processor.on_end(ended)

    def label(self, app: str, path: str = "") -> None:
        """Set the app and path once they are known."""
        super().label(app, path)
        self._tags |= {"fn_appname": app, **({"fn_path": path} if path else {})}

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Add the span and its baggage to the headers of a request."""
        write_b3(headers, self.context, self.parent, self.baggage)

    def _place(self, present: ExportedSpan | None) -> None:
        """Find its trace and its parent."""
        if present is None or self._step.relation is Relation.ROOT:
            self.context, self.parent, self.baggage = _context(_new_trace(), _new_id()), None, {}
        elif present.context.trace_flags.sampled:
            self.context, self.parent = _context(present.context.trace_id, _new_id()), present.context
            self.baggage = present.baggage
        else:
            self.context, self.parent, self.baggage = present.context, present.parent, present.baggage
        self._inherit("fn_appname", self._app)
        self._inherit("fn_path", self._path)

    def _inherit(self, key: str, value: str) -> None:
        """Have its children inherit a value."""
        if value and self.baggage.get(key) != value:
            self.baggage = {**self.baggage, key: value}


class _Serving(ExportedSpan):
    """The span of a request: the one that its client has started, if the headers name one."""

    __slots__ = ("_headers",)

    def __init__(
        self,
        processors: Sequence[SpanProcessor],
        durations: Histogram,
        url_path: str,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        super().__init__(processors, durations, Step("serve_http"), SpanKind.SERVER)
        self._tags["path"] = url_path
        self._headers = headers

    def _place(self, present: ExportedSpan | None) -> None:
        context, self.parent, self.baggage = read_b3(self._headers)
        self.context = context or _context(_new_trace(), _new_id())


class ExportedSteps:
    """Steps that are exported.

    Args:
        of: Makes the span of a step.
        steps: The steps.
    """

    def __init__(self, of: Callable[[Step], ExportedSpan], steps: Sequence[Step]) -> None:
        self._of = of
        self._steps = steps

    def begin(self) -> list[ExportedSpan]:
        """Start them."""
        return [self._of(step).__enter__() for step in self._steps]

    def end(self, started: list[ExportedSpan], error: BaseException | None = None) -> None:
        """End them, and hand them to the processors."""
        error = error or sys.exception()
        for span in reversed(started):
            span.__exit__(None if error is None else type(error), error, None)


def is_shared(span: ReadableSpan) -> bool:
    """Return True if the client of a request has started the span, and reports its times."""
    return span.context is not None and span.context.is_remote


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=SAMPLED)


def _new_trace() -> int:
    return random.getrandbits(128) or 1


def _new_id() -> int:
    return random.getrandbits(64) or 1


_present: Final[ContextVar[ExportedSpan | None]] = ContextVar("present span", default=None)
