"""Containers that are kept ready and their greatest number, on both drivers: what a client and an operator see."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.support.docker_images import python_image
from tests.support.fleet import running_fleet
from tests.support.node import BUSY, MULTI, RunningNode, build_multi, running_node
from tests.support.waiting import until


@pytest.fixture(scope="module", params=["process", "docker"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp(f"kept-{request.param}")
    if request.param == "docker":
        request.getfixturevalue("docker")
        image = python_image(MULTI)
    else:
        image = build_multi(data, data / "source")
    with running_node(request.param, data, image, FN_FUNCTION_NETWORK="none") as running:
        yield running


def metric(node: RunningNode, name: str, path: str) -> float:
    """A gauge of a route; 0 if there is none."""
    for line in node.http.get("/metrics").text.splitlines():
        if line.startswith(f"{name}{{") and f'"{path}"' in line:
            return float(line.rpartition(" ")[2])
    return 0.0


def ready(node: RunningNode, path: str) -> int:
    return int(metric(node, "fn_container_idle_total", path) + metric(node, "fn_container_busy_total", path))


def put(node: RunningNode, path: str, **fields: Any) -> httpx.Response:
    return node.http.put(f"/v1/apps/e2e/routes{path}", json={"route": fields})


def test_containers_are_ready_before_the_first_call_and_come_back(node: RunningNode) -> None:
    path = node.route("early", "http", timeout=60, idle_timeout=1, min_instances=2)
    assert until(lambda: ready(node, "/early") == 2)
    assert node.call(path, exit=1).status_code == 502
    assert until(lambda: ready(node, "/early") == 2)
    assert put(node, "/early", min_instances=1).json()["route"]["min_instances"] == 1
    assert until(lambda: ready(node, "/early") == 1)
    assert put(node, "/early", min_instances=0).status_code == 200
    assert until(lambda: ready(node, "/early") == 0), "the idle timeout ends them now"


def test_a_new_version_is_ready_and_a_deleted_function_is_gone(node: RunningNode) -> None:
    path = node.route("renewed", "http-stream", timeout=60, idle_timeout=600, min_instances=1, config={"V": "1"})
    assert until(lambda: ready(node, "/renewed") == 1)
    first = node.call(path, tell=True).json()["born"]
    assert put(node, "/renewed", config={"V": "2"}).status_code == 200
    assert until(lambda: metric(node, "fn_container_done_total", "/renewed") == 1 and ready(node, "/renewed") == 1)
    assert node.call(path, tell=True).json()["born"] != first
    assert node.http.delete("/v1/apps/e2e/routes/renewed").status_code == 200
    assert until(lambda: ready(node, "/renewed") == 0)


def test_a_fn_keeps_containers_ready_as_its_annotation_says(node: RunningNode) -> None:
    app = node.http.get("/v2/apps", params={"name": "e2e"}).json()["items"][0]
    fields = {"name": "kept", "app_id": app["id"], "image": node.image, "annotations": {"hearth/min_instances": 1}}
    fn = node.http.post("/v2/fns", json=fields).json()
    assert until(lambda: ready(node, "kept") == 1)
    born = metric(node, "fn_container_done_total", "kept")
    more = node.http.put(f"/v2/fns/{fn['id']}", json={"annotations": {"hearth/min_instances": 2}})
    assert more.status_code == 200, more.text
    assert until(lambda: ready(node, "kept") == 2)
    assert metric(node, "fn_container_done_total", "kept") == born, "the first one stays"
    wrong = node.http.put(f"/v2/fns/{fn['id']}", json={"annotations": {"hearth/max_instances": 1}})
    assert (wrong.status_code, wrong.json()["message"]) == (
        400,
        "Invalid number of instances: min_instances 2 is above max_instances 1",
    )
    assert node.http.delete(f"/v2/fns/{fn['id']}").status_code == 204
    assert until(lambda: ready(node, "kept") == 0)


def test_what_does_not_fit_is_refused_or_reported(node: RunningNode) -> None:
    node.route("bounds", "http")
    both = put(node, "/bounds", min_instances=3, max_instances=2)
    message = "Invalid number of instances: min_instances 3 is above max_instances 2"
    assert (both.status_code, both.json()["error"]["message"]) == (400, message)
    cold = put(node, "/bounds", format="default", min_instances=1)
    assert (cold.status_code, cold.json()["error"]["message"]) == (
        400,
        "Invalid number of instances: min_instances needs the format http, json or http-stream, not default",
    )
    assert put(node, "/bounds", memory=4096, min_instances=9).status_code == 200
    assert until(lambda: metric(node, "hearth_min_instances_unmet", "/bounds") >= 8)
    warnings = node.http.get("/readyz").json()["warnings"]
    assert any("min_instances is not met for 1 function(s)" in text for text in warnings), warnings
    assert put(node, "/bounds", min_instances=None).status_code == 200
    assert until(lambda: "min_instances" not in node.http.get("/readyz").text)


def test_no_more_containers_than_allowed_serve_calls(node: RunningNode) -> None:
    path = node.route("capped", "http", timeout=60, idle_timeout=60, min_instances=1, max_instances=2)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: node.call(path, sleep_ms=50, tell=True), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["born"] for answer in answers}) <= 2
    short = node.route("narrow", "http", timeout=2, max_instances=1)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: node.call(short, sleep_ms=1500), range(3)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) <= 2
    refused = answers[statuses.index(503)]
    assert refused.json()["error"]["message"] == BUSY


def test_runners_learn_of_functions_from_their_api_node(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_fleet(tmp_path_factory.mktemp("kept-fleet"), runners=2) as fleet:
        fleet.api.route("early", "http", idle_timeout=600, min_instances=1)
        for runner in fleet.runners:
            assert until(lambda runner=runner: ready(runner, "/early") == 1)  # type: ignore[misc]
        assert ready(fleet.api, "/early") == 0
        assert fleet.api.http.delete("/v1/apps/e2e/routes/early").status_code == 200
        for runner in fleet.runners:
            assert until(lambda runner=runner: ready(runner, "/early") == 0)  # type: ignore[misc]
