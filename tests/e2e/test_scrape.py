"""What a node tells Prometheus, on both drivers."""

from __future__ import annotations

from tests.support.node import RunningNode
from tests.support.scrape import samples
from tests.support.waiting import until


def test_a_scrape_tells_of_calls_containers_and_spans(node: RunningNode) -> None:
    path = node.route("measured", "json", timeout=30, idle_timeout=30)
    for _ in range(3):
        assert node.call(path, echo="x").status_code == 200
    labels = ("e2e", "/measured")
    # After its first answers a container is watched for a moment before it is idle.
    assert until(lambda: samples(node.http.get("/metrics").text).get(("fn_container_idle_total", *labels)) == 1)
    answer = node.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    told = samples(answer.text)
    assert told["fn_calls", *labels] == told["fn_completed", *labels] == 3
    assert (told["fn_queued", *labels], told["fn_running", *labels]) == (0, 0)
    assert told["fn_container_idle_total", *labels] == 1
    assert told["fn_container_busy_duration_seconds_count", *labels] == 3
    assert told["fn_span_serve_http_duration_seconds_count", *labels] >= 3
    assert told["fn_span_agent_submit_duration_seconds_count", *labels] == 3
    assert told["fn_span_agent_submit_app_duration_seconds_count", "e2e", ""] >= 3
    assert told["fn_span_agent_submit_global_duration_seconds_count", "", ""] >= 3


def test_what_a_container_uses_is_exported_between_its_calls(node: RunningNode) -> None:
    path = node.route("measured-idle", "json", timeout=30, idle_timeout=30)
    assert node.call(path, echo="x").status_code == 200
    key = ("fn_docker_stats_fn_mem_usage_{}", "e2e", "/measured-idle")

    def counted(what: str) -> float:
        return samples(node.http.get("/metrics").text).get((key[0].format(what), *key[1:]), 0.0)

    assert until(lambda: counted("count") >= 2)
    assert until(lambda: counted("sum") > 1 << 20)  # the first may have met it before it was there


def test_what_does_not_exist_is_no_label(node: RunningNode) -> None:
    assert node.http.get("/r/no-such-app/no-such-path").status_code == 404
    assert node.http.get("/v1/apps/no-such-app").status_code == 404
    assert node.http.get("/v1/apps/no-such-app/routes/no-such-path").status_code == 404
    assert "no-such" not in node.http.get("/metrics").text
