"""Spans as a collector gets them: from a node as a process, over HTTP, in each of the three forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.collector import Collector, collecting
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node
from tests.support.waiting import until

TRACE, CLIENT, PARENT = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312", "0020000000000001"
B3 = {"X-B3-TraceId": TRACE, "X-B3-SpanId": CLIENT, "X-B3-Sampled": "1"}
FORMS = {
    "zipkin v1": ("FN_ZIPKIN_URL", "/api/v1/spans"),
    "zipkin v2": ("FN_ZIPKIN_URL", "/api/v2/spans"),
    "otlp": ("FN_OTLP_URL", ""),
}

Traced = tuple[RunningNode, Collector]


@pytest.fixture(scope="module", params=FORMS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A node that exports its spans, and where they go."""
    data = tmp_path_factory.mktemp("traced")
    variable, path = FORMS[request.param]
    with (
        collecting() as collector,
        running_node("process", data, build_multi(data, data / "source"), **{variable: collector.url + path}) as node,
    ):
        yield node, collector


def test_the_spans_of_a_hot_call_share_the_trace_of_its_request(traced: Traced) -> None:
    node, collector = traced
    path = node.route("hot", "json", idle_timeout=1)
    answer = node.http.post(path, json={}, headers=B3)
    assert answer.status_code == 200
    labels = {"fn_appname": "e2e", "fn_path": "/hot"}
    request = collector.one("serve_http", path="/r/e2e/hot")
    assert (request.trace, request.id, request.kind, request.service) == (TRACE, CLIENT, "server", "fnserver")
    submit = collector.one("agent_submit", **labels)
    assert (submit.trace, submit.parent) == (TRACE, CLIENT)
    for name in ("agent_get_slot", "agent_call_start", "agent_hot_exec", "agent_call_end"):
        span = collector.one(name, **labels)
        assert (span.trace, span.parent) == (TRACE, submit.id), name
    assert collector.one("agent_wait_hot", **labels).parent == collector.one("agent_get_slot", **labels).id
    life = collector.one("agent_run_hot", **labels)
    assert (life.trace, life.tags["opentracing.ref_type"]) == (TRACE, "follows_from")
    assert life.duration_us > 900_000  # it outlived its call by the idle timeout
    assert collector.one("agent_get_resource_token", **labels).parent == life.id


def test_the_spans_of_a_cold_call(traced: Traced) -> None:
    node, collector = traced
    path = node.route("cold", "default")
    assert node.http.post(path, json={}).status_code == 200
    labels = {"fn_appname": "e2e", "fn_path": "/cold"}
    trace = collector.one("serve_http", path="/r/e2e/cold").trace
    for name in ("agent_submit", "agent_get_slot", "agent_launch_cold", "agent_prep_cold", "agent_cold_exec"):
        assert collector.one(name, **labels).trace == trace, name


def test_global_and_app_are_roots(traced: Traced) -> None:
    node, collector = traced
    path = node.route("roots", "json")
    assert node.http.post(path, json={}, headers=B3).status_code == 200
    app, everything = collector.one("agent_submit_app", fn_appname="e2e"), collector.one("agent_submit_global")
    assert {app.parent, everything.parent} == {""}
    assert TRACE not in (app.trace, everything.trace)
    assert "fn_path" not in app.tags
    assert not {"fn_appname", "fn_path"} & everything.tags.keys()


def test_a_parent_and_baggage_are_taken_over(traced: Traced) -> None:
    node, collector = traced
    headers = {**B3, "X-B3-SpanId": "00000000000000ab", "X-B3-ParentSpanId": PARENT, "ot-baggage-fn_appname": "other"}
    assert node.http.get("/version", headers=headers).status_code == 200
    span = collector.one("serve_http", path="/version")
    assert (span.trace, span.id, span.parent) == (TRACE, "00000000000000ab", PARENT)
    assert span.tags["fn_appname"] == "other"


@pytest.mark.parametrize("headers", [{}, {"X-B3-TraceId": "zz", "X-B3-SpanId": "1"}, {"X-B3-TraceId": TRACE}])
def test_bad_or_absent_headers_begin_a_trace(traced: Traced, headers: dict[str, str]) -> None:
    node, collector = traced
    before = len(collector.named("serve_http", path="/"))
    assert node.http.get("/", headers=headers).status_code == 200
    assert until(lambda: len(collector.named("serve_http", path="/")) > before)
    span = collector.named("serve_http", path="/")[-1]
    assert (len(span.trace), span.trace == TRACE, span.parent) == (32, False, "")


def test_no_span_contains_what_opens_something(traced: Traced) -> None:
    """Neither the token of a caller or of a result, nor a cookie."""
    node, collector = traced
    path = node.route("secretive", "json")
    secret = "no-span-shows-this"
    headers = {**B3, "Authorization": f"Bearer {secret}", "Cookie": f"session={secret}", "X-Token": secret}
    later = {**headers, "Prefer": "respond-async"}
    accepted = node.http.post(f"{path}?token={secret}", json={}, headers=later)
    where, _, token = accepted.headers["location"].partition("?")
    assert node.http.get(f"{where}?{token}&wait=30", headers=headers).status_code == 200
    assert node.http.get("/v1/apps", headers=headers).status_code == 200
    assert collector.one("serve_http", path=where)
    assert collector.one("serve_http", path="/v1/apps")
    assert collector.one("agent_submit", fn_path="/secretive")
    shown = [str(span.raw) for span in collector.spans]
    assert not [text for text in shown if secret in text or token.removeprefix("token=") in text]


def test_batches_are_bounded_and_nothing_but_spans_of_the_list_arrives(traced: Traced) -> None:
    node, collector = traced
    for _ in range(60):
        node.http.get("/version")
    assert until(lambda: len(collector.named("serve_http", path="/version")) >= 60)
    assert max(collector.batches) <= 100
    assert not [span.name for span in collector.spans if "dummy" in span.name]
    assert collector.one("server_init").service == "fnserver"


def test_a_collector_that_fails_is_only_logged(traced: Traced) -> None:
    node, collector = traced
    collector.fails = True
    try:
        assert node.http.get("/version").status_code == 200
        log = node.data / "server.log"
        assert until(lambda: "not exported" in log.read_text() or "Failed to export" in log.read_text())
        assert node.http.get("/version").status_code == 200
    finally:
        collector.fails = False
    assert 'msg="started tracer"' in log.read_text()


def test_a_collector_that_never_answers_holds_no_call_up(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with collecting() as collector:
        collector.answers.clear()
        with running_node("process", tmp_path, image, FN_ZIPKIN_URL=collector.url + "/api/v2/spans") as node:
            path = node.route("hot", "json")
            for _ in range(20):
                assert node.http.post(path, json={}).status_code == 200
            assert not collector.spans
            collector.answers.set()
            assert collector.one("agent_submit_global")
            assert node.stop() == 0


def test_what_docker_does_is_part_of_the_trace(docker: None, tmp_path: Path) -> None:
    with (
        collecting() as collector,
        running_node("docker", tmp_path, python_image(MULTI), FN_ZIPKIN_URL=collector.url + "/api/v2/spans") as node,
    ):
        answer = node.http.post(node.route("hot", "json", idle_timeout=1), json={}, headers=B3)
        assert answer.status_code == 200
        for name in ("create_container", "attach_container", "start_container", "inspect_container"):
            assert collector.one(f"docker_{name}").trace == TRACE, name
        for name in ("wait_container", "remove_container", "collect_stats"):
            assert collector.one(f"docker_{name}").trace == TRACE, name
        assert node.stop() == 0
        launcher = collector.one("agent_hot_launcher", fn_appname="e2e")  # sent at the node's end
        assert (launcher.trace, launcher.tags["opentracing.ref_type"]) == (TRACE, "follows_from")
