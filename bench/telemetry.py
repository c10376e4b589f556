"""What a metric and a span cost, in nanoseconds of processor time, and what they add to a warm call.

``python -m bench.telemetry``
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

import msgspec

from hearth.agent.life import CallState, ContainerState
from hearth.agent.meters import ContainerMeter, Outcome
from hearth.agent.stats import CallStats
from hearth.models.route import Route
from hearth.telemetry import metrics, tracing
from hearth.telemetry.spans import Span, SpanTracer
from hearth.telemetry.tracing import Relation, span
from hearth.telemetry.zipkin import span_v1, span_v2

_TIMES = 100_000


class _Loop:
    """A clock that costs what the event loop's does, about."""

    def monotonic(self) -> float:
        """Seconds."""
        return timeit.default_timer()


def main() -> None:
    """Print the figures."""
    counter, histogram = metrics.counter("fn_calls"), metrics.histogram("fn_span_bench_duration_seconds")
    _print("counter.add", lambda: counter.add(1, "a", "/b"))
    _print("histogram.observe", lambda: histogram.observe(0.1, "a", "/b"))
    _print("a warm call's counters", _counters())
    _print("a warm call's container gauges", _container())
    _print("span, not exported", _one_span)
    off = _print("a warm call's 9 spans, not exported", _spans_of_a_call)
    sent: list[Span] = []
    tracing.install(SpanTracer(sent.append))
    _spans_of_a_call()
    tracing.install(SpanTracer(lambda span: None))
    _print("span, exported", _one_span)
    on = _print("a warm call's 9 spans, exported", _spans_of_a_call)
    tracing.install(None)
    print(f"with a collector they cost {on / off:.1f} times as much, before they are encoded and sent")
    endpoint = {"serviceName": "fnserver"}
    for encode in (span_v1, span_v2):
        name = f"a warm call's 9 spans, encoded ({encode.__name__})"
        _print(name, lambda encode=encode: msgspec.json.encode([encode(span, endpoint) for span in sent]))


def _print(name: str, act: Callable[[], object]) -> float:
    ns = min(timeit.repeat(act, timer=time.process_time, number=_TIMES // 10, repeat=5)) / (_TIMES // 10) * 1e9
    print(f"{name:40} {ns:8.0f} ns")
    return ns


def _one_span() -> None:
    with span("agent_get_slot", "a", "/b"):
        pass


def _spans_of_a_call() -> None:
    with (
        tracing.serving("/r/a/b", []),
        span("agent_submit", "a", "/b"),
        span("agent_submit_global", relation=Relation.ROOT, is_present=False),
        span("agent_submit_app", "a", relation=Relation.ROOT, is_present=False),
    ):
        for name in ("agent_get_slot", "agent_wait_hot", "agent_call_start", "agent_hot_exec", "agent_call_end"):
            with span(name, "a", "/b"):
                pass


def _counters() -> Callable[[], None]:
    meter = CallStats().of("a", "/b")

    def act() -> None:
        meter.moved(None, CallState.WAIT)
        meter.moved(CallState.WAIT, CallState.EXEC)
        meter.moved(CallState.EXEC, CallState.DONE)
        meter.left(Outcome.COMPLETE)

    return act


def _container() -> Callable[[], None]:
    meter = ContainerMeter(Route(app_name="a", path="/b"), _Loop(), lambda left, entered: None)  # type: ignore[arg-type]

    meter(None, ContainerState.IDLE)

    def act() -> None:
        meter(ContainerState.IDLE, ContainerState.BUSY)
        meter(ContainerState.BUSY, ContainerState.IDLE)

    return act


if __name__ == "__main__":
    main()
