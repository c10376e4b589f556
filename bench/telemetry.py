"""What a metric and a span cost, in nanoseconds of processor time, and what they add to a warm call.

``python -m bench.telemetry``
"""

from __future__ import annotations

import functools
import time
import timeit
from collections.abc import Callable
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from hearth.agent.function import FunctionSpans
from hearth.agent.meters import CallMeter, ContainerSeries
from hearth.agent.states import ContainerCounts, ContainerLife, Stage
from hearth.aio.clock import SystemClock
from hearth.models.function import FunctionRef
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry
from hearth.telemetry.spans import ExportingTracing
from hearth.telemetry.tracing import Tracing
from hearth.telemetry.zipkin import span_v1, span_v2

_TIMES = 100_000
_REF = FunctionRef(id="a/b", app_id="a", app_name="a", name="/b")


class _Kept(SpanProcessor):
    def __init__(self, spans: list[ReadableSpan]) -> None:
        self._spans = spans

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)


def main() -> None:
    """Print the figures."""
    telemetry = Telemetry()
    counter = telemetry.metrics.counter("fn_calls")
    histogram = telemetry.metrics.histogram("fn_span_bench_duration_seconds")
    _print("counter.add", lambda: counter.add(1, "a", "/b"))
    _print("histogram.observe", lambda: histogram.observe(0.1, "a", "/b"))
    _print("a warm call's counters", _counters(telemetry.metrics))
    _print("a warm call's container gauges", _container(telemetry.metrics))
    _print("span, not exported", _one_span(telemetry.tracing))
    off = _print("a warm call's 9 spans, not exported", _spans_of_a_call(telemetry.tracing))
    sent: list[ReadableSpan] = []
    metrics = telemetry.metrics
    _spans_of_a_call(ExportingTracing(metrics, [_Kept(sent)]))()
    exported = ExportingTracing(metrics, [SpanProcessor()])
    _print("span, exported", _one_span(exported))
    on = _print("a warm call's 9 spans, exported", _spans_of_a_call(exported))
    print(f"with a collector they cost {on / off:.1f} times as much, before they are encoded and sent")
    endpoint = {"serviceName": "fnserver"}
    for encode in (span_v1, span_v2):
        name = f"a warm call's 9 spans, encoded ({encode.__name__})"
        _print(name, functools.partial(_encode, encode, sent, endpoint))


def _encode(encode: Callable[..., Any], spans: list[ReadableSpan], endpoint: dict[str, str]) -> bytes:
    return msgspec.json.encode([encode(span, endpoint) for span in spans])


def _print(name: str, act: Callable[[], object]) -> float:
    ns = min(timeit.repeat(act, timer=time.process_time, number=_TIMES // 10, repeat=5)) / (_TIMES // 10) * 1e9
    print(f"{name:40} {ns:8.0f} ns")
    return ns


def _one_span(tracing: Tracing) -> Callable[[], None]:
    def act() -> None:
        with tracing.span("agent_get_slot", "a", "/b"):
            pass

    return act


def _spans_of_a_call(tracing: Tracing) -> Callable[[], None]:
    spans = FunctionSpans(tracing, _REF)

    def act() -> None:
        with tracing.serving("/r/a/b", []):
            submitted = spans.submit.begin()
            for steps in (spans.hot_slot, spans.start, spans.hot_exec, spans.end):
                steps.end(steps.begin())
            spans.submit.end(submitted)

    return act


def _counters(metrics: Metrics) -> Callable[[], None]:
    meter = CallMeter(metrics, _REF)

    def act() -> None:
        meter.calls.value += 1
        meter.queued.value += 1
        meter.queued.value -= 1
        meter.running.value += 1
        meter.running.value -= 1
        meter.responses[2].value += 1
        meter.completed.value += 1

    return act


def _container(metrics: Metrics) -> Callable[[], None]:
    life = ContainerLife(SystemClock(), ContainerCounts(), ContainerSeries(metrics, _REF))
    life.enter(Stage.START)
    life.enter(Stage.IDLE)

    def act() -> None:
        life.enter(Stage.BUSY)
        life.enter(Stage.IDLE)

    return act


if __name__ == "__main__":
    main()
