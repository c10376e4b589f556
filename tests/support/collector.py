"""A collector of spans: a real HTTP server that takes what is sent, and reads it as its kind of collector would."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.waiting import until


@dataclasses.dataclass(frozen=True)
class Span:
    """One span, whatever the form in which it came."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    service: str
    tags: dict[str, str]
    duration_us: int
    raw: Any


class Collector:
    """What has arrived.

    Attributes:
        fails: Each request is refused.
        answers: Clear: no request is answered until it is set.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.batches: list[int] = []
        self.fails = False
        self.answers = threading.Event()
        self.answers.set()
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        """One request's body."""
        if path == "/api/v1/spans":
            spans = [_v1(one) for one in json.loads(body)]
        elif path == "/api/v2/spans":
            spans = [_v2(one) for one in json.loads(body)]
        elif path == "/v1/traces":
            spans = list(_otlp(ExportTraceServiceRequest.FromString(body)))
        else:
            raise AssertionError(path)
        self.batches.append(len(spans))
        self.spans += spans

    def named(self, name: str, **tags: str) -> list[Span]:
        """Spans of this name with these tags."""
        return [span for span in list(self.spans) if span.name == name and tags.items() <= span.tags.items()]

    def one(self, name: str, **tags: str) -> Span:
        """The first of them, when it has come."""
        assert until(lambda: bool(self.named(name, **tags))), (name, sorted({span.name for span in self.spans}))
        return self.named(name, **tags)[0]


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.answers.wait()
            if not collector.fails:
                collector.take(self.path, body)
            self.send_response(500 if collector.fails else 202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _v1(one: dict[str, Any]) -> Span:
    tags = {tag["key"]: tag["value"] for tag in one["binaryAnnotations"]}
    values = {note["value"] for note in one["annotations"]}
    kind = "server" if {"sr", "ss"} <= values else "client" if {"cs", "cr"} <= values else ""
    endpoints = [note["endpoint"] for note in [*one["annotations"], *one["binaryAnnotations"]]]
    return Span(
        one["name"],
        one["traceId"],
        one["id"],
        one.get("parentId", ""),
        kind,
        endpoints[0]["serviceName"],
        tags,
        one.get("duration", 0),
        one,
    )


def _v2(one: dict[str, Any]) -> Span:
    return Span(
        one["name"],
        one["traceId"],
        one["id"],
        one.get("parentId", ""),
        one.get("kind", "").lower(),
        one["localEndpoint"]["serviceName"],
        one["tags"],
        one["duration"],
        one,
    )


def _otlp(request: ExportTraceServiceRequest) -> Iterator[Span]:
    kinds = {2: "server", 3: "client"}
    for resource in request.resource_spans:
        service = {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"]
        for scope in resource.scope_spans:
            for one in scope.spans:
                yield Span(
                    one.name,
                    one.trace_id.hex(),
                    one.span_id.hex(),
                    one.parent_span_id.hex(),
                    kinds.get(one.kind, ""),
                    service,
                    {item.key: item.value.string_value for item in one.attributes},
                    (one.end_time_unix_nano - one.start_time_unix_nano) // 1000,
                    one,
                )
