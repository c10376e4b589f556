"""Spans on their way to a collector: which are sent, what they tell a server, and that they never hold anybody up."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from hearth.telemetry import tracing
from hearth.telemetry.export import Sender
from hearth.telemetry.spans import Span, SpanTracer
from hearth.telemetry.tracing import Relation, span

TRACE, CLIENT, PARENT = b"463ac35c9f6413ad48485a3953bb6124", b"a2fb4a1d1a96d312", b"0020000000000001"
B3 = [(b"x-b3-traceid", TRACE), (b"x-b3-spanid", CLIENT)]


@pytest.fixture
def sent() -> Iterator[list[Span]]:
    """What is sent."""
    spans: list[Span] = []
    tracing.install(SpanTracer(spans.append))
    yield spans
    tracing.install(None)


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
    sent: list[Span], more: list[tuple[bytes, bytes]], recorded: bool
) -> None:
    headers: dict[str, str] = {}
    with tracing.serving("/", [*B3, *more]), span("agent_submit", "a", "/p"), span("hybrid_client_http_do"):
        tracing.inject(headers)
    assert [one.name for one in sent] == (["hybrid_client_http_do", "agent_submit", "serve_http"] if recorded else [])
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
def test_what_names_no_span_begins_a_trace(sent: list[Span], headers: list[tuple[bytes, bytes]]) -> None:
    with tracing.serving("/x", headers):
        pass
    (made,) = sent
    assert made.trace not in (0, int(TRACE, 16))
    assert (made.parent, made.shared) == (0, False)


def test_the_span_of_a_client_is_shared_and_baggage_is_inherited_but_by_roots(sent: list[Span]) -> None:
    headers = [*B3, (b"x-b3-parentspanid", PARENT), (b"ot-baggage-fn_appname", b"o%20ther"), (b"ot-baggage-x", b"1")]
    with (
        tracing.serving("/x", headers),
        span("agent_submit", path="/p"),
        span("agent_submit_global", relation=Relation.ROOT),
    ):
        pass
    root, child, server = sent
    assert (server.id, server.parent, server.shared) == (int(CLIENT, 16), int(PARENT, 16), True)
    assert server.tags() == {"fn_appname": "o ther", "path": "/x"}
    assert (child.trace, child.parent, child.tags()) == (
        server.trace,
        server.id,
        {"fn_appname": "o ther", "fn_path": "/p"},
    )
    assert (root.parent, root.tags(), root.trace == server.trace) == (0, {}, False)


class Collector:
    """Takes spans, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = threading.Event()
        self.batches: list[int] = []

    def send(self, spans: Sequence[Span]) -> None:
        self.asked.set()
        self.may.wait()
        self.batches.append(len(spans))

    def close(self) -> None: ...


def test_a_collector_that_takes_nothing_holds_nobody_up_and_gets_what_is_kept() -> None:
    collector = Collector()
    sender = Sender([collector])
    tracer = SpanTracer(sender.put)
    for _ in range(100):
        tracer.start("agent_submit", "a", "/p", Relation.ROOT, None).end(None)
    collector.asked.wait()
    for _ in range(12_000):
        tracer.start("agent_submit", "a", "/p", Relation.ROOT, None).end(None)
    collector.may.set()
    sender.close()
    assert max(collector.batches) == 100
    assert 10_000 <= sum(collector.batches) <= 10_100
