"""Spans to a collector. Imported only where one is set: it costs start-up and memory."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from hearth.telemetry import tracing
from hearth.telemetry.logs import get_logger
from hearth.telemetry.spans import Span, SpanTracer
from hearth.telemetry.zipkin import ZipkinExporter

_BATCH: Final = 100
_PERIOD_S: Final = 1.0
_LIMIT_S: Final = 5
#: Spans that may wait for a collector; what ends while there are more is lost.
_MAX_WAITING: Final = 10_000

_log = get_logger(__name__)


class Exporter(Protocol):
    """Where spans go. Called by one thread."""

    def send(self, spans: Sequence[Span]) -> None:
        """Send a batch; what cannot be sent is logged, and lost."""

    def close(self) -> None:
        """No more."""


@contextlib.contextmanager
def exporting(zipkin_url: str, otlp_url: str, port: int) -> Iterator[None]:
    """Export spans; leaving it sends what is left, for some seconds at most. Blocks then: for a thread.

    Args:
        zipkin_url: Of a Zipkin collector: its v2 endpoint, or else one that takes v1. Empty: none.
        otlp_url: Of an OpenTelemetry collector that speaks OTLP over HTTP. Empty: none.
        port: Where this node serves.
    """
    exporters: list[Exporter] = []
    if zipkin_url:
        exporters.append(ZipkinExporter(zipkin_url, port, _LIMIT_S))
        _log.info("started tracer", url=zipkin_url)
    if otlp_url:
        from hearth.telemetry.otlp import OtlpExporter, traces_url

        exporters.append(OtlpExporter(otlp_url, _LIMIT_S))
        _log.info("started tracer", url=traces_url(otlp_url))
    sender = Sender(exporters)
    tracing.install(SpanTracer(sender.put))
    try:
        yield
    finally:
        tracing.install(None)
        sender.close()


class Sender:
    """Hands spans to exporters in a thread of its own: a batch when there is one, and what there is once a second."""

    def __init__(self, exporters: Sequence[Exporter]) -> None:
        self._exporters = exporters
        self._waiting: deque[Span] = deque()
        self._lost = 0
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, span: Span) -> None:
        """Have a span sent; never waits."""
        count = len(self._waiting)
        if count >= _MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(span)
        if count == _BATCH - 1:
            self._wake.set()

    def close(self) -> None:
        """Send what is left, if the collectors take it soon."""
        self._closing = True
        self._wake.set()
        self._thread.join(2 * _LIMIT_S)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(_PERIOD_S)
            self._wake.clear()
            self._send()
        self._send()
        for exporter in self._exporters:
            exporter.close()

    def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            for exporter in self._exporters:
                exporter.send(batch)
        if self._lost:
            _log.warning("spans lost, the collector takes them too slowly", spans=self._lost)
            self._lost = 0
