"""Spans on their way to a collector: which are sent, what they tell a server, and that they never hold anybody up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from structlog.testing import capture_logs
from tests.support.spans import Sent, exporting_to, ids

from hearth.telemetry import export
from hearth.telemetry.export import SpanQueue
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry
from hearth.telemetry.spans import ExportingTracing, is_shared
from hearth.telemetry.tracing import Relation, Tracing

TRACE, CLIENT, PARENT = b"463ac35c9f6413ad48485a3953bb6124", b"a2fb4a1d1a96d312", b"0020000000000001"
B3 = [(b"x-b3-traceid", TRACE), (b"x-b3-spanid", CLIENT)]


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def tracing(sent: Sent) -> Tracing:
    return exporting_to(sent).tracing


@pytest.mark.parametrize(
    ("more", "recorded"),
    [
        ([], True),
        ([(b"x-b3-sampled", b"1")], True),
        ([(b"x-b3-sampled", b"0")], False),
        ([(b"x-b3-sampled", b"false")], False),
        ([(b"x-b3-sampled", b"0"), (b"x-b3-flags", b"1")], True),
    ],
)
def test_a_client_decides_whether_its_trace_is_recorded(
    sent: Sent, tracing: Tracing, more: list[tuple[bytes, bytes]], recorded: bool
) -> None:
    headers: dict[str, str] = {}
    span = tracing.span
    with tracing.serving("/", [*B3, *more]), span("agent_submit", "a", "/p"), span("hybrid_client_http_do"):
        tracing.inject(headers)
    names = ["hybrid_client_http_do", "agent_submit", "serve_http"]
    assert [one.name for one in sent.spans] == (names if recorded else [])
    assert (headers["x-b3-traceid"], headers["x-b3-sampled"]) == (TRACE.decode(), "01"[recorded])
    assert (headers["ot-baggage-fn_appname"], headers["ot-baggage-fn_path"]) == ("a", "/p")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-b3-traceid", TRACE)],
        [(b"x-b3-traceid", b"0x" + TRACE[2:]), (b"x-b3-spanid", CLIENT)],
        [(b"x-b3-traceid", TRACE[:-1]), (b"x-b3-spanid", CLIENT)],
        [(b"x-b3-traceid", TRACE), (b"x-b3-spanid", b"0" * 16)],
    ],
)
def test_what_names_no_span_begins_a_trace(sent: Sent, tracing: Tracing, headers: list[tuple[bytes, bytes]]) -> None:
    with tracing.serving("/x", headers):
        pass
    (made,) = sent.spans
    trace, _, parent = ids(made)
    assert trace not in (0, int(TRACE, 16))
    assert (parent, is_shared(made)) == (0, False)


def test_the_span_of_a_client_is_shared_and_baggage_is_inherited_but_by_roots(sent: Sent, tracing: Tracing) -> None:
    headers = [*B3, (b"x-b3-parentspanid", PARENT), (b"ot-baggage-fn_appname", b"o%20ther"), (b"ot-baggage-x", b"1")]
    with (
        tracing.serving("/x", headers),
        tracing.span("agent_submit", path="/p"),
        tracing.span("agent_submit_global", relation=Relation.ROOT),
    ):
        pass
    root, child, server = sent.spans
    assert (*ids(server), is_shared(server)) == (int(TRACE, 16), int(CLIENT, 16), int(PARENT, 16), True)
    assert server.attributes == {"fn_appname": "o ther", "path": "/x"}
    assert ids(child)[::2] == (int(TRACE, 16), int(CLIENT, 16))
    assert child.attributes == {"fn_appname": "o ther", "fn_path": "/p"}
    assert (ids(root)[2], root.attributes, ids(root)[0] == int(TRACE, 16)) == (0, {}, False)


def test_a_span_that_has_ended_is_nobodys_parent(sent: Sent, tracing: Tracing) -> None:
    with tracing.span("agent_submit"), tracing.span("agent_get_slot"):
        pass
    with tracing.span("agent_submit"):
        pass
    assert [ids(span)[2] != 0 for span in sent.spans] == [True, False, False]


def test_what_outlives_its_cause_is_linked_to_it(sent: Sent, tracing: Tracing) -> None:
    with tracing.span("agent_submit"):
        life = tracing.span("agent_run_hot", relation=Relation.FOLLOWS).begin()
    life.end()
    cause, follower = sent.spans
    assert [link.context for link in follower.links] == [cause.context]
    assert follower.attributes == {"opentracing.ref_type": "follows_from"}
    assert not cause.links


def test_an_error_is_a_tag_and_a_client_that_leaves_is_none(sent: Sent, tracing: Tracing) -> None:
    for error in (ValueError("too small"), KeyError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), tracing.span("agent_submit"):
            raise error
    assert [dict(span.attributes or {}) for span in sent.spans] == [{"error": "too small"}, {"error": "KeyError"}, {}]


def test_spans_that_are_not_exported_know_no_trace() -> None:
    tracing, headers = Telemetry().tracing, dict[str, str]()
    with tracing.serving("/", B3), tracing.span("agent_submit"):
        tracing.inject(headers)
    assert headers == {}


class Collector(SpanExporter):
    """Takes spans, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = threading.Event()
        self.batches: list[int] = []
        self.failure: Exception | None = None
        self.refuses = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.may.wait()
        self.batches.append(len(spans))
        if self.failure is not None:
            raise self.failure
        if self.refuses:
            logging.getLogger(__name__).error("refused")
        return SpanExportResult.FAILURE if self.refuses else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.may.set()


def end(tracing: Tracing, count: int) -> None:
    for _ in range(count):
        tracing.span("agent_submit", "a", "/p").begin().end()


def test_a_collector_that_takes_nothing_holds_nobody_up_and_gets_what_is_kept() -> None:
    collector = Collector()
    queue = SpanQueue("http://collector", collector)
    tracing = ExportingTracing(Metrics(), [queue])
    with capture_logs() as lines:
        end(tracing, 100)
        collector.asked.wait()
        end(tracing, 12_000)
        collector.may.set()
        queue.shutdown()
    assert max(collector.batches) == 100
    assert 10_000 <= sum(collector.batches) <= 10_100
    (lost,) = [line for line in lines if line["event"].startswith("spans lost")]
    assert lost["spans"] == 12_100 - sum(collector.batches)


def test_an_outage_of_a_collector_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    collector.may.set()
    queue = SpanQueue("http://collector", collector)
    tracing = ExportingTracing(Metrics(), [queue])
    with capture_logs() as lines:
        for state in ({"failure": OSError("refused")}, {"failure": None, "refuses": True}, {"refuses": False}):
            for name, value in state.items():
                setattr(collector, name, value)
            end(tracing, 150)
            queue.force_flush()
        queue.shutdown()
    assert [(line["event"], line.get("error"), line.get("lost")) for line in lines] == [
        ("spans not exported", "refused", None),
        ("spans exported again", None, 300),
    ]
    assert not caplog.records, "what the exporter says of the same outage"


def test_a_node_that_stops_does_not_wait_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = BatchSpanProcessor.shutdown

    def stop_with_an_answer(self: BatchSpanProcessor) -> None:
        collector.may.set()  # to the batch on its way, which the node cannot take back
        stop(self)

    monkeypatch.setattr(export, "LIMIT_S", 0)
    monkeypatch.setattr(BatchSpanProcessor, "shutdown", stop_with_an_answer)
    collector = Collector()
    queue = SpanQueue("http://collector", collector)
    tracing = ExportingTracing(Metrics(), [queue])
    end(tracing, 100)
    collector.asked.wait()
    end(tracing, 1000)
    queue.shutdown()
    assert sum(collector.batches) == 100
