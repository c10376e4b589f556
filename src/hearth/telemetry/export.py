"""Spans to collectors. Imported only where one is set: its libraries cost start-up and memory."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry
from hearth.telemetry.spans import ExportingTracing
from hearth.telemetry.zipkin import ZipkinExporter

_BATCH: Final = 100
_PERIOD_S: Final = 1.0
LIMIT_S: Final = 5
#: Spans that may wait for a collector; what ends while there are more is lost.
_MAX_WAITING: Final = 10_000
#: Where collectors take spans, below their base URL.
_OTLP_PATH: Final = "/v1/traces"

_log = get_logger(__name__)


@contextlib.contextmanager
def exporting(zipkin_url: str, otlp_url: str, port: int) -> Iterator[Telemetry]:
    """Open telemetry that exports its spans; leaving it sends what is left, for some seconds at most, and blocks.

    Args:
        zipkin_url: Of a Zipkin collector: its v2 endpoint, or else one that takes v1. Empty: none.
        otlp_url: Of an OpenTelemetry collector that speaks OTLP over HTTP. Empty: none.
        port: Where this node serves.
    """
    queues: list[SpanQueue] = []
    if zipkin_url:
        queues.append(SpanQueue(zipkin_url, ZipkinExporter(zipkin_url, port, LIMIT_S)))
    if otlp_url:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        url = otlp_url if _OTLP_PATH in otlp_url else otlp_url.rstrip("/") + _OTLP_PATH
        queues.append(SpanQueue(url, OTLPSpanExporter(endpoint=url, timeout=LIMIT_S)))
    metrics = Metrics()
    try:
        yield Telemetry(metrics, ExportingTracing(metrics, queues))
    finally:
        for queue in queues:
            queue.shutdown()


class SpanQueue(BatchSpanProcessor):
    """The spans that wait for one collector. Its thread sends a batch when there is one, and the rest once a second.

    Args:
        url: Of the collector, for log lines.
        exporter: Sends batches; may take long, and fail.
    """

    def __init__(self, url: str, exporter: SpanExporter) -> None:
        _log.info("started tracer", url=url)
        self._sending = _Sending(url, exporter)
        self._taken = 0
        super().__init__(
            self._sending,
            max_queue_size=_MAX_WAITING,
            schedule_delay_millis=_PERIOD_S * 1000,
            max_export_batch_size=_BATCH,
            export_timeout_millis=LIMIT_S * 1000,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Have a span sent; never waits."""
        if self._taken - self._sending.taken >= _MAX_WAITING:
            self._sending.overflow += 1
            return
        self._taken += 1
        super().on_end(span)

    def shutdown(self) -> None:
        """Send what is left, if the collector takes it soon."""
        self._sending.give_up_at = time.monotonic() + LIMIT_S
        super().shutdown()  # type: ignore[no-untyped-call]  # the library has no annotation


class _Sending(SpanExporter):
    """Sends batches for a queue, and logs what is lost: once per outage, because a collector may be away for long.

    Attributes:
        taken: Spans that have left the queue.
        overflow: Spans that found the queue full since the last batch.
        give_up_at: Time from which on nothing is sent.
    """

    def __init__(self, url: str, exporter: SpanExporter) -> None:
        self.taken = 0
        self.overflow = 0
        self.give_up_at = float("inf")
        self._url = url
        self._exporter = exporter
        self._lost = 0
        self._thread = 0
        self._logger = logging.getLogger(type(exporter).__module__)
        self._logger.addFilter(self._is_news)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch."""
        self._thread = threading.get_ident()
        self.taken += len(spans)
        failure = self._send(spans)
        if failure:
            if not self._lost:
                _log.warning("spans not exported", url=self._url, error=failure)
            self._lost += len(spans)
        elif self._lost:
            _log.info("spans exported again", url=self._url, lost=self._lost)
            self._lost = 0
        if self.overflow:
            _log.warning("spans lost, the collector takes them too slowly", url=self._url, spans=self.overflow)
            self.overflow = 0
        return SpanExportResult.FAILURE if failure else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()
        self._logger.removeFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Return False for the log lines of the exporter that repeat the failure of an outage."""
        return not self._lost or record.thread != self._thread

    def _send(self, spans: Sequence[ReadableSpan]) -> str:
        """Return why a batch was not sent; nothing if it was."""
        if time.monotonic() >= self.give_up_at:
            return "the node stops"
        try:
            result = self._exporter.export(spans)
        except Exception as exc:
            return str(exc) or type(exc).__name__
        return "" if result is SpanExportResult.SUCCESS else "the collector does not take them"
