"""Handlers that yield, from a client's side: pieces arrive as they are made, and nobody takes a part for the whole."""

from __future__ import annotations

import httpx
import pytest
from tests.support.base_image import base_image
from tests.support.cli import Cli
from tests.support.node import RunningNode
from tests.support.waiting import until

FUNCTION = """
from hearth_fdk import Context, Event, function, sse

calls = 0

def pieces(act):
    yield "first"
    while act == "endless":
        yield "more " * 1000
    if act == "fail":
        raise RuntimeError("on purpose")
    yield "last"

@function
def handle(ctx: Context, order: dict) -> object:
    global calls
    calls += 1
    if order["act"] == "count":
        return calls
    if order["act"] == "events":
        return sse(Event(text, id=str(number)) for number, text in enumerate(pieces("")))
    ctx.set_status(207)
    return pieces(order["act"])
"""


@pytest.fixture(scope="module")
def image(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("streams") / f"streams-{node.driver}"
    folder.mkdir()
    (folder / "func.py").write_text(FUNCTION)
    (folder / "func.yaml").write_text(f"runtime: python\nrun_image: {base_image()}\n")
    cli = Cli("", node.data, FN_DATA_DIR=str(node.data), DOCKER_BUILDKIT="0")
    cli("build", "--driver", node.driver, folder)
    return f"{folder.name}:latest"


def test_a_stream_arrives_whole_in_each_format(node: RunningNode, image: str, any_format: str) -> None:
    path = node.route(f"stream-{any_format}", any_format, image=image)
    answer = node.call(path, act="whole")
    assert (answer.status_code, answer.text) == (200 if any_format == "default" else 207, "firstlast")


def test_events_arrive_as_browsers_read_them(node: RunningNode, image: str) -> None:
    answer = node.call(node.route("stream-events", "http", image=image), act="events")
    assert (answer.status_code, answer.text) == (200, "id: 0\ndata: first\n\nid: 1\ndata: last\n\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_pieces_arrive_while_more_are_made_and_a_client_that_leaves_stops_them(node: RunningNode, image: str) -> None:
    path = node.route("stream-endless", "http", image=image)
    with node.http.stream("POST", path, json={"act": "endless"}) as answer:
        assert answer.status_code == 207
        assert next(answer.iter_bytes(5)) == b"first"
    assert until(lambda: node.is_recorded(answer))
    assert node.record(answer)["status"] == "error"
    assert node.call(path, act="count").json() == 1  # another container: the one before was stopped


def test_an_answer_that_fails_in_the_middle_is_seen_to_be_cut_off(node: RunningNode, image: str) -> None:
    path = node.route("stream-fail", "http", image=image)
    with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the head arrives before
        with node.http.stream("POST", path, json={"act": "fail"}) as answer:
            assert answer.status_code == 207
            for _ in answer.iter_bytes():
                pass
    assert until(lambda: node.is_recorded(answer))
    assert until(lambda: "RuntimeError: on purpose" in node.log(answer))
    assert node.record(answer)["status"] == "error"
    assert node.call(path, act="count").json() == 1
