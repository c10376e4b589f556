"""Spans as OTLP over HTTP, through OpenTelemetry's own exporter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from hearth.telemetry.spans import Span
from hearth.telemetry.zipkin import SERVICE

#: Where collectors take spans, below their base URL.
_PATH: Final = "/v1/traces"
_KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_SCOPE: Final = InstrumentationScope("hearth")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def traces_url(url: str) -> str:
    """Where a collector with this URL takes spans."""
    return url if _PATH in url else url.rstrip("/") + _PATH


class OtlpExporter:
    """Posts batches of spans. Runs in a thread of its own; OpenTelemetry logs what cannot be sent.

    Args:
        url: The collector's, with or without the path for spans.
        limit_s: For one batch.
    """

    def __init__(self, url: str, limit_s: float) -> None:
        self._exporter = OTLPSpanExporter(endpoint=traces_url(url), timeout=limit_s)
        self._resource = Resource({"service.name": SERVICE})

    def send(self, spans: Sequence[Span]) -> None:
        """Send one batch."""
        self._exporter.export([self._readable(span) for span in spans])

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no annotation

    def _readable(self, span: Span) -> ReadableSpan:
        parent = SpanContext(span.trace, span.parent, is_remote=span.kind == "server") if span.parent else None
        return ReadableSpan(
            span.name,
            SpanContext(span.trace, span.id, is_remote=False, trace_flags=_SAMPLED),
            parent,
            self._resource,
            span.tags(),
            links=[Link(parent)] if span.follows and parent is not None else [],
            kind=_KINDS[span.kind],
            start_time=span.begun_ns,
            end_time=span.ended_ns,
            instrumentation_scope=_SCOPE,
        )
