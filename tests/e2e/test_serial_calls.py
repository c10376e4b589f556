"""What one caller that waits for each answer costs and gets, on both drivers."""

from __future__ import annotations

import itertools
import json
from urllib.parse import quote

import pytest
from tests.support.node import RunningNode
from tests.support.scrape import samples


def started(node: RunningNode, path: str) -> float:
    """Containers of a function that have started by now."""
    told = samples(node.http.get("/metrics").text)
    return told["fn_container_start_duration_seconds_count", "e2e", path]


def test_thirty_serial_calls_of_a_new_function_start_one_container(node: RunningNode, hot: str) -> None:
    path = node.route(f"serial-{hot}", hot, timeout=30, idle_timeout=30)
    answers = [node.call(path, echo=str(number), say=f"line {number}") for number in range(30)]
    assert [answer.text for answer in answers] == [str(number) for number in range(30)]
    assert started(node, f"/serial-{hot}") == 1


STRAY = {
    "http": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
    "json": '{"body":"stolen"}\n',
    "http-stream": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
}


@pytest.mark.parametrize("after_ms", [0, 3, 50])
def test_each_serial_call_gets_its_own_answer_from_a_function_that_answers_twice(
    node: RunningNode, hot: str, after_ms: int
) -> None:
    if node.driver == "docker" and hot != "http-stream" and after_ms:
        return  # an Engine delivers when it likes: what is 3 ms late in the container is later here
    path = node.route(f"twice-{hot}-{after_ms}", hot, timeout=30, idle_timeout=30)
    answers = [node.call(path, echo=f"for-{n}", again=STRAY[hot], again_ms=after_ms) for n in range(6)]
    assert [answer.text for answer in answers] == [f"for-{n}" for n in range(6)]


@pytest.mark.parametrize("after_ms", [0, 3])
def test_each_serial_call_is_answered_by_a_function_that_exits_in_order_after_its_answer(
    node: RunningNode, hot: str, after_ms: int
) -> None:
    path = node.route(f"leaves-{hot}-{after_ms}", hot, timeout=30, idle_timeout=30)
    answers = [node.call(path, echo=f"for-{n}", after=0, after_ms=after_ms) for n in range(6)]
    own = [(answer.status_code, answer.text) == (200, f"for-{n}") for n, answer in enumerate(answers)]
    if node.driver == "process":
        assert all(own)
    else:  # an Engine may date the exit later than the next call: whether that was run, nobody can tell
        cut_off = [answer for answer, is_own in zip(answers, own, strict=True) if not is_own]
        assert {(one.status_code, one.json()["error"]["message"]) for one in cut_off} <= {
            (502, "container exit code 0")
        }
        assert all(first or second for first, second in itertools.pairwise([False, *own])), "each new container answers"
    assert started(node, f"/leaves-{hot}-{after_ms}") >= sum(own)


def test_a_function_that_does_not_read_a_body_does_not_read_it_as_the_next_call(node: RunningNode) -> None:
    path = node.route("unread-http", "http", timeout=30, idle_timeout=30)
    do = quote(json.dumps({"unread": True, "echo": "unread"}))
    for size in (5, 5_000, 60_000):
        assert node.http.post(f"{path}?do={do}", content=b"x" * size).text == "unread"
        if node.driver == "process":  # what an Engine has taken, nobody can tell from what the function has read
            assert node.call(path, echo="next").text == "next"
