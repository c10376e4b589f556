"""Spans in Zipkin's JSON, both versions: no maintained exporter speaks the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from hearth.telemetry.logs import get_logger
from hearth.telemetry.spans import Span

SERVICE: Final = "fnserver"
_V2: Final = "/api/v2/spans"
_KINDS: Final = {"server": ("SERVER", "sr", "ss"), "client": ("CLIENT", "cs", "cr")}

_log = get_logger(__name__)


class ZipkinExporter:
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

    def send(self, spans: Sequence[Span]) -> None:
        """Send one batch."""
        body = msgspec.json.encode([self._encode(span, self._endpoint) for span in spans])
        try:
            answer = self._http.post(self._url, content=body, headers={"Content-Type": "application/json"})
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            if not self._lost:  # once for all that follow: a collector may be away for long
                _log.warning("spans not exported", url=self._url, error=str(exc))
            self._lost += len(spans)
            return
        if self._lost:
            _log.info("spans exported again", url=self._url, lost=self._lost)
            self._lost = 0

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def span_v2(span: Span, endpoint: dict[str, Any]) -> dict[str, Any]:
    """One span as version 2 has it."""
    begun, duration = _times(span)
    told = {**_identity(span), "timestamp": begun, "duration": duration, "localEndpoint": endpoint}
    if span.kind in _KINDS:
        told["kind"] = _KINDS[span.kind][0]
    if span.shared:
        told["shared"] = True
    told["tags"] = span.tags()
    return told


def span_v1(span: Span, endpoint: dict[str, Any]) -> dict[str, Any]:
    """One span as version 1 has it."""
    begun, duration = _times(span)
    tags = span.tags()
    told = _identity(span)
    if not span.shared:  # the times of a shared span are its client's
        told |= {"timestamp": begun, "duration": duration}
    told["annotations"] = []
    if span.kind in _KINDS:
        _, first, last = _KINDS[span.kind]
        told["annotations"] = [
            {"timestamp": begun, "value": first, "endpoint": endpoint},
            {"timestamp": span.ended_ns // 1000, "value": last, "endpoint": endpoint},
        ]
    else:
        tags = {"lc": SERVICE, **tags}  # what names the place of a span within one process
    told["binaryAnnotations"] = [{"key": key, "value": value, "endpoint": endpoint} for key, value in tags.items()]
    return told


def _identity(span: Span) -> dict[str, Any]:
    told: dict[str, Any] = {"traceId": f"{span.trace:032x}", "id": f"{span.id:016x}", "name": span.name}
    if span.parent:
        told["parentId"] = f"{span.parent:016x}"
    return told


def _times(span: Span) -> tuple[int, int]:
    """Begin and duration, microseconds."""
    begun = span.begun_ns // 1000
    return begun, max(1, span.ended_ns // 1000 - begun)
