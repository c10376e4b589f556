"""Spans in Zipkin's JSON, both versions.

OpenTelemetry's own exporter for Zipkin is deprecated, knows no shared spans, and its version 1 has neither the kind of
a span nor, where there are no tags, its service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from hearth.telemetry.spans import SERVICE, is_shared

_V2: Final = "/api/v2/spans"
_KINDS: Final = {SpanKind.SERVER: ("SERVER", "sr", "ss"), SpanKind.CLIENT: ("CLIENT", "cs", "cr")}


class ZipkinExporter(SpanExporter):
    """Posts batches of spans.

    Args:
        url: The collector's endpoint; v2 if it ends in ``/api/v2/spans``.
        port: Where this node serves.
        limit_s: For one batch.
    """

    def __init__(self, url: str, port: int, limit_s: float) -> None:
        self._url = url
        self._endpoint = {"serviceName": SERVICE, "ipv4": "127.0.0.1", "port": port}
        self._encode = span_v2 if urlsplit(url).path.rstrip("/").endswith(_V2) else span_v1
        self._http = httpx.Client(timeout=limit_s)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch.

        Raises:
            httpx.HTTPError: The collector did not take it.
        """
        body = msgspec.json.encode([self._encode(span, self._endpoint) for span in spans])
        headers = {"Content-Type": "application/json"}
        self._http.post(self._url, content=body, headers=headers).raise_for_status()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connection."""
        self._http.close()


def span_v2(span: ReadableSpan, endpoint: dict[str, Any]) -> dict[str, Any]:
    """Return one span as version 2 has it."""
    return {
        **_identity(span),
        **_times(span),
        "localEndpoint": endpoint,
        **({"kind": _KINDS[span.kind][0]} if span.kind in _KINDS else {}),
        **({"shared": True} if is_shared(span) else {}),
        "tags": dict(span.attributes or {}),
    }


def span_v1(span: ReadableSpan, endpoint: dict[str, Any]) -> dict[str, Any]:
    """Return one span as version 1 has it."""
    times, tags = _times(span), dict(span.attributes or {})
    annotations: list[dict[str, Any]] = []
    if span.kind in _KINDS:
        start, end = times["timestamp"], (span.end_time or 0) // 1000
        annotations = [
            {"timestamp": at, "value": value, "endpoint": endpoint}
            for at, value in zip((start, end), _KINDS[span.kind][1:], strict=True)
        ]
    else:
        tags = {"lc": SERVICE, **tags}  # names the place of a span within one process
    return {
        **_identity(span),
        **({} if is_shared(span) else times),  # the times of a shared span are its client's
        "annotations": annotations,
        "binaryAnnotations": [{"key": key, "value": value, "endpoint": endpoint} for key, value in tags.items()],
    }


def _identity(span: ReadableSpan) -> dict[str, str]:
    assert span.context is not None
    identity = {"traceId": f"{span.context.trace_id:032x}", "id": f"{span.context.span_id:016x}", "name": span.name}
    return identity if span.parent is None else {**identity, "parentId": f"{span.parent.span_id:016x}"}


def _times(span: ReadableSpan) -> dict[str, int]:
    """Return start and duration in microseconds."""
    start, end = (span.start_time or 0) // 1000, (span.end_time or 0) // 1000
    return {"timestamp": start, "duration": max(1, end - start)}
