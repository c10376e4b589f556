"""Spans to a collector, through OpenTelemetry. Imported only where a collector is set: it costs start-up and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Final
from urllib.parse import quote, unquote

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind

from hearth.telemetry import tracing
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import Relation
from hearth.telemetry.zipkin import SERVICE, SHARED, ZipkinExporter

_BATCH: Final = 100
_PERIOD_MS: Final = 1000
_LIMIT_S: Final = 5
_BAGGAGE: Final = "ot-baggage-"
_PARENT: Final = "x-b3-parentspanid"
#: Where OTLP collectors take spans, below their base URL.
_OTLP_PATH: Final = "/v1/traces"

_log = get_logger(__name__)
_b3: Final = B3MultiFormat()


@contextlib.contextmanager
def exporting(zipkin_url: str, otlp_url: str, port: int) -> Iterator[None]:
    """Export spans; leaving it sends what is left, for some seconds at most. Blocks then: for a thread.

    Args:
        zipkin_url: Of a Zipkin collector: its v2 endpoint, or else one that takes v1. Empty: none.
        otlp_url: Of an OpenTelemetry collector that speaks OTLP over HTTP. Empty: none.
        port: Where this node serves.
    """
    ids = _Ids()
    provider = TracerProvider(resource=Resource({"service.name": SERVICE}), id_generator=ids, shutdown_on_exit=False)
    if zipkin_url:
        _add(provider, zipkin_url, ZipkinExporter(zipkin_url, port, _LIMIT_S))
    if otlp_url:
        url = otlp_url if _OTLP_PATH in otlp_url else otlp_url.rstrip("/") + _OTLP_PATH
        _add(provider, url, OTLPSpanExporter(endpoint=url, timeout=_LIMIT_S))
    tracing.install(OtelTracer(provider, ids))
    try:
        yield
    finally:
        tracing.install(None)
        provider.shutdown()


def _add(provider: TracerProvider, url: str, exporter: SpanExporter) -> None:
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            schedule_delay_millis=_PERIOD_MS,
            max_export_batch_size=_BATCH,
            export_timeout_millis=_LIMIT_S * 1000,
        )
    )
    _log.info("started tracer", url=url)


class _Ids(RandomIdGenerator):
    """Random ids, but for the span that a client and its server share."""

    def __init__(self) -> None:
        self.given: SpanContext | None = None

    def generate_span_id(self) -> int:
        return self.given.span_id if self.given is not None else super().generate_span_id()

    def generate_trace_id(self) -> int:
        return self.given.trace_id if self.given is not None else super().generate_trace_id()


class OtelLive:
    """A span, and the baggage that its children inherit."""

    __slots__ = ("baggage", "span")

    def __init__(self, span: trace.Span, baggage: dict[str, str]) -> None:
        self.span = span
        self.baggage = baggage

    def tag(self, key: str, value: str) -> None:
        """Tell more of it."""
        self.span.set_attribute(key, value)

    def end(self, error: BaseException | None) -> None:
        """It is over."""
        if error is not None and isinstance(error, Exception):
            self.span.set_attribute("error", str(error) or type(error).__name__)
        self.span.end()


class OtelTracer:
    """Makes spans of OpenTelemetry's."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        self._tracer = provider.get_tracer("hearth")
        self._ids = ids

    def start(self, name: str, app: str, path: str, relation: Relation, present: tracing.Live | None) -> OtelLive:
        """A new span."""
        parent = present if relation is not Relation.ROOT and isinstance(present, OtelLive) else None
        baggage = dict(parent.baggage) if parent is not None else {}
        if app:
            baggage["fn_appname"] = app
        if path:
            baggage["fn_path"] = path
        tags = _tags(baggage)
        links = []
        if parent is not None and relation is Relation.FOLLOWS:
            tags["opentracing.ref_type"] = "follows_from"
            links = [trace.Link(parent.span.get_span_context())]
        kind = SpanKind.CLIENT if name.startswith("hybrid_client_") else SpanKind.INTERNAL
        context = Context() if parent is None else trace.set_span_in_context(parent.span, Context())
        return OtelLive(self._tracer.start_span(name, context, kind, tags, links), baggage)

    def serve(self, name: str, url_path: str, headers: Iterable[tuple[bytes, bytes]]) -> OtelLive:
        """The span of a request; the one that its client has begun, if the headers tell of one."""
        told = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in headers}
        baggage = {
            key[len(_BAGGAGE) :].replace("-", "_"): unquote(value)
            for key, value in told.items()
            if key.startswith(_BAGGAGE)
        }
        context, clients = self._context(told)
        tags = {"path": url_path, **_tags(baggage)}
        if clients is not None:
            tags[SHARED] = "true"
        self._ids.given = clients
        try:
            return OtelLive(self._tracer.start_span(name, context, SpanKind.SERVER, tags), baggage)
        finally:
            self._ids.given = None

    def inject(self, present: tracing.Live, headers: MutableMapping[str, str]) -> None:
        """Tell a server of the present span."""
        if not isinstance(present, OtelLive):
            return
        _b3.inject(headers, trace.set_span_in_context(present.span, Context()))
        for key, value in present.baggage.items():
            headers[_BAGGAGE + key] = quote(value, safe="/")

    @staticmethod
    def _context(told: dict[str, str]) -> tuple[Context, SpanContext | None]:
        """The parent of a request's span, and the ids to take over from its client."""
        context = _b3.extract(told, Context())
        clients = trace.get_current_span(context).get_span_context()
        if not clients.is_valid:
            return Context(), None
        if not clients.trace_flags.sampled:
            return context, None
        parent = told.get(_PARENT, "")
        try:
            parent_id = int(parent, 16) if len(parent) == 16 else 0
        except ValueError:
            parent_id = 0
        if not parent_id:
            return Context(), clients
        above = SpanContext(clients.trace_id, parent_id, is_remote=True, trace_flags=clients.trace_flags)
        return trace.set_span_in_context(NonRecordingSpan(above), Context()), clients


def _tags(baggage: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in baggage.items() if key.startswith("fn")}
