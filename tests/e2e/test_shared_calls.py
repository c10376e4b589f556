"""Containers that run several calls at once, on both drivers: what the calls share, and what they must not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.support.docker_images import python_image
from tests.support.hostile import CROWDED
from tests.support.node import MULTI, RunningNode, build_bundle, running_node
from tests.support.waiting import until

CROWD = MULTI.with_name("crowd.py")
AT_ONCE = 8
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["process", "docker"])
def crowd_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp(f"crowd-{request.param}")
    if request.param == "docker":
        request.getfixturevalue("docker")
        image = python_image(CROWD)
    else:
        image = build_bundle(data, data / "crowd", CROWD)
    with running_node(request.param, data, image, FN_FUNCTION_NETWORK="none", FN_LOG_LEVEL="debug") as running:
        yield running


class Crowd:
    """A route of its own whose containers run several calls at once."""

    def __init__(self, node: RunningNode, pool: ThreadPoolExecutor, **fields: Any) -> None:
        self.node, self.pool = node, pool
        given = {"concurrency": AT_ONCE, "timeout": 60, "idle_timeout": 60, **fields}
        self.path = node.route(f"crowd{next(_numbers)}", "http-stream", **given)

    def call(self, **orders: Any) -> httpx.Response:
        return self.node.call(self.path, **orders)

    def start(self, **orders: Any) -> Future[httpx.Response]:
        return self.pool.submit(self.call, **orders)

    def ended(self, **orders: Any) -> httpx.Response | None:
        """Call it; ``None`` if the answer broke off."""
        try:
            return self.call(**orders)
        except httpx.RemoteProtocolError:
            return None

    def seen(self, **orders: Any) -> dict[str, Any]:
        answer = self.node.call_once_free(self.path, **orders)  # a busy machine starts no container in half a timeout
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as made:
        yield made


def test_calls_at_once_share_a_process_up_to_the_limit(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    crowd = Crowd(crowd_node, pool)
    crowd.seen(echo="warm")
    calls = [crowd.start(meet=AT_ONCE, echo=str(number)) for number in range(AT_ONCE)]
    answers = [call.result().json() for call in calls]
    assert [answer["echo"] for answer in answers] == [str(number) for number in range(AT_ONCE)]
    assert {(answer["born"], answer["most"]) for answer in answers} == {(answers[0]["born"], AT_ONCE)}
    more = [crowd.start(sleep_ms=50, echo="") for _ in range(5 * AT_ONCE)]
    assert {call.result().json()["most"] <= AT_ONCE for call in more} == {True}


def test_dozens_of_calls_share_a_process(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    many = 40  # the function has a thread for each, and 50 in all
    crowd = Crowd(crowd_node, pool, concurrency=many)
    born = crowd.seen(echo="warm")["born"]
    answers = [call.result().json() for call in [crowd.start(meet=many, echo=str(n)) for n in range(many)]]
    assert [answer["echo"] for answer in answers] == [str(number) for number in range(many)]
    assert {(answer["born"], answer["most"]) for answer in answers} == {(born, many)}


def test_a_late_call_ends_alone(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    crowd = Crowd(crowd_node, pool, timeout=3)
    born = crowd.seen(echo="warm")["born"]
    late = crowd.start(hold=True)
    while not late.done():
        assert crowd.seen(sleep_ms=100, echo="beside")["born"] == born
    assert late.result().status_code == 504
    assert crowd.node.record(late.result())["status"] == "timeout"
    calls = [crowd.start(meet=AT_ONCE, echo="") for _ in range(AT_ONCE)]  # its slot is free
    assert {call.result().json()["born"] for call in calls} == {born}


def test_a_call_that_cannot_be_ended_ends_its_container_after_the_others(
    crowd_node: RunningNode, pool: ThreadPoolExecutor
) -> None:
    crowd = Crowd(crowd_node, pool, timeout=9)
    born = crowd.seen(echo="warm")["born"]
    with httpx.Client(base_url=crowd_node.url, timeout=1.0) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.post(crowd.path, json={"ignore_ms": 3_600_000})
    beside = crowd.start(sleep_ms=7000, echo="beside")  # longer than the function has to end the other
    assert until(lambda: crowd.seen(echo="next")["born"] != born)
    assert (beside.result().json()["echo"], beside.result().json()["born"]) == ("beside", born)


@pytest.mark.parametrize(
    "orders",
    [{"status": 500}, {"half": True}, {"hang_up": True}, {"twice": True}, {"fork": True, "hang_up": True}],
    ids=str,
)
def test_a_broken_answer_is_the_failure_of_its_own_call_only(
    crowd_node: RunningNode, pool: ThreadPoolExecutor, orders: dict[str, Any]
) -> None:
    crowd = Crowd(crowd_node, pool, timeout=12)
    born = crowd.seen(echo="warm")["born"]
    beside = [crowd.start(meet=4, sleep_ms=300, echo=f"beside {number}") for number in range(3)]
    broken = crowd.ended(meet=4, echo="mine", **orders)
    if "twice" in orders:
        assert broken is not None
        assert broken.json()["echo"] == "mine"
    else:
        status = 504 if "fork" in orders else 502  # the child holds the connection
        assert broken is None or broken.status_code == status, broken.text
    assert [call.result().json()["echo"] for call in beside] == [f"beside {number}" for number in range(3)]
    assert until(lambda: crowd.seen(echo="next")["born"] != born)


def test_the_end_of_the_process_ends_its_calls_and_others_go_on(
    crowd_node: RunningNode, pool: ThreadPoolExecutor
) -> None:
    crowd = Crowd(crowd_node, pool)
    crowd.seen(echo="warm")
    calls = [crowd.start(meet=3, sleep_ms=20_000, echo="") for _ in range(2)]
    assert crowd.call(meet=3, exit=3).status_code == 502
    for call in calls:
        assert call.result().status_code == 502
        assert "container exit code 3" in crowd_node.record(call.result())["error"]
    assert crowd.seen(echo="next")["echo"] == "next"


def test_a_log_holds_the_lines_of_its_own_call_only(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    crowd = Crowd(crowd_node, pool)
    crowd.seen(echo="warm")
    calls = [crowd.start(meet=4, say=f"of {number}", shout="of nobody", echo="") for number in range(4)]
    answers = [call.result() for call in calls]
    assert until(lambda: [crowd_node.log(answer) for answer in answers] == [f"of {number}\n" for number in range(4)])


def test_no_answer_is_mixed_up_whatever_the_function_does(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    crowd = Crowd(crowd_node, pool, timeout=5)
    draw = random.Random(1)
    calls = []
    for number in range(400):
        orders = draw.choice(CROWDED) if draw.random() < 0.1 else {"sleep_ms": draw.randrange(30)}
        calls.append((f"call {number}", orders, pool.submit(crowd.ended, echo=f"call {number}", **orders)))
    good = 0
    for text, orders, call in calls:
        answer = call.result()
        if answer is not None and answer.status_code == 200:
            assert answer.json()["echo"] == text, "somebody else's answer"
            good += 1
        elif answer is not None:
            assert answer.status_code in (502, 503, 504), (orders, answer.text)
    assert good > 200


def test_a_format_on_pipes_refuses_several_calls_at_once(crowd_node: RunningNode) -> None:
    route = {"image": crowd_node.image, "format": "http", "concurrency": 2}
    answer = crowd_node.http.put("/v1/apps/e2e/routes/pipes", json={"route": route})
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "Invalid route concurrency: above 1 it needs the format http-stream, not http",
    )


def test_a_route_shows_how_many_calls_its_containers_run(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    crowd = Crowd(crowd_node, pool)
    url = f"/v1/apps/e2e/routes{crowd.path.removeprefix('/r/e2e')}"
    assert crowd_node.http.get(url).json()["route"]["concurrency"] == AT_ONCE
    back = crowd_node.http.patch(url, json={"route": {"concurrency": 1}})
    assert "concurrency" not in back.json()["route"]


def test_an_async_route_runs_several_accepted_calls_at_once(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    crowd = Crowd(crowd_node, pool, type="async")
    accepted = [crowd.call(meet=3, echo="") for _ in range(3)]
    assert [crowd_node.ended(answer)["status"] for answer in accepted] == ["success"] * 3


def test_an_annotation_lets_a_fn_run_several_calls_at_once(crowd_node: RunningNode, pool: ThreadPoolExecutor) -> None:
    app = crowd_node.http.post("/v2/apps", json={"name": f"crowd{next(_numbers)}"}).json()["id"]
    fields = {"app_id": app, "name": "f", "image": crowd_node.image}
    wrong = crowd_node.http.post("/v2/fns", json={**fields, "annotations": {"hearth/concurrency": "8"}})
    assert wrong.status_code == 400
    assert "hearth/concurrency is out of range" in wrong.json()["message"]
    fn = crowd_node.http.post("/v2/fns", json={**fields, "annotations": {"hearth/concurrency": 4}}).json()["id"]
    calls = [pool.submit(crowd_node.http.post, f"/invoke/{fn}", json={"meet": 4, "echo": ""}) for _ in range(4)]
    assert {call.result().json()["most"] for call in calls} == {4}
