"""Spans in Zipkin's JSON, both versions: no maintained exporter speaks the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from hearth.telemetry.logs import get_logger

SERVICE: Final = "fnserver"
#: The tag of a span whose first half its client reports.
SHARED: Final = "hearth.shared"
_V2: Final = "/api/v2/spans"
_KINDS: Final = {SpanKind.SERVER: ("SERVER", "sr", "ss"), SpanKind.CLIENT: ("CLIENT", "cs", "cr")}

_log = get_logger(__name__)


class ZipkinExporter(SpanExporter):
    """Posts batches of spans. Runs in a thread of its own; what cannot be sent is logged and lost.

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
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch."""
        body = msgspec.json.encode([self._encode(span, self._endpoint) for span in spans])
        try:
            answer = self._http.post(self._url, content=body, headers={"Content-Type": "application/json"})
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            if not self._lost:  # once for all that follow: a collector may be away for long
                _log.warning("spans not exported", url=self._url, error=str(exc))
            self._lost += len(spans)
            return SpanExportResult.FAILURE
        if self._lost:
            _log.info("spans exported again", url=self._url, lost=self._lost)
            self._lost = 0
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connection."""
        self._http.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return True


def span_v2(span: ReadableSpan, endpoint: dict[str, Any]) -> dict[str, Any]:
    """One span as version 2 has it."""
    begun, ended = _times(span)
    tags = _tags(span)
    shared = tags.pop(SHARED, None)
    told = {**_identity(span), "timestamp": begun, "duration": max(1, ended - begun), "localEndpoint": endpoint}
    if span.kind in _KINDS:
        told["kind"] = _KINDS[span.kind][0]
    if shared is not None:
        told["shared"] = True
    return {**told, "tags": tags}


def span_v1(span: ReadableSpan, endpoint: dict[str, Any]) -> dict[str, Any]:
    """One span as version 1 has it."""
    begun, ended = _times(span)
    tags = _tags(span)
    shared = tags.pop(SHARED, None)
    told = _identity(span)
    if shared is None:  # the times of a shared span are its client's
        told |= {"timestamp": begun, "duration": max(1, ended - begun)}
    told["annotations"] = []
    if span.kind in _KINDS:
        _, first, last = _KINDS[span.kind]
        told["annotations"] = [
            {"timestamp": begun, "value": first, "endpoint": endpoint},
            {"timestamp": ended, "value": last, "endpoint": endpoint},
        ]
    else:
        tags = {"lc": SERVICE, **tags}  # what names the place of a span within one process
    told["binaryAnnotations"] = [{"key": key, "value": value, "endpoint": endpoint} for key, value in tags.items()]
    return told


def _identity(span: ReadableSpan) -> dict[str, Any]:
    context = span.context
    told: dict[str, Any] = {"traceId": f"{context.trace_id:032x}", "id": f"{context.span_id:016x}", "name": span.name}
    if span.parent is not None:
        told["parentId"] = f"{span.parent.span_id:016x}"
    return told


def _times(span: ReadableSpan) -> tuple[int, int]:
    """Begin and end, microseconds since the epoch."""
    return (span.start_time or 0) // 1000, (span.end_time or 0) // 1000


def _tags(span: ReadableSpan) -> dict[str, str]:
    return {key: str(value) for key, value in (span.attributes or {}).items()}
