"""Clients that leave, or send nothing, while a call waits: they hold up nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.raw_http import RawClient
from tests.support.waiting import until

#: MiB of which the node has room for one container.
MEMORY = 6000


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with room for one container."""
    data = tmp_path_factory.mktemp("full")
    image = build_multi(data, data / "source")
    with running_node("process", data, image) as node:
        yield node


@pytest.fixture
def raw(full: RunningNode) -> Iterator[RawClient]:
    """A connection to it."""
    with RawClient(full.url) as client:
        yield client


def request(path: str, length: int | None, sent: bytes) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n".encode() + sent


@pytest.mark.parametrize(
    ("length", "sent"),
    [(100, b""), (100, b"x" * 99), (1 << 20, b""), (None, b"")],
    ids=["nothing", "one byte short", "nothing of much", "no chunk"],
)
def test_a_client_that_sends_no_body_takes_no_container(
    full: RunningNode, raw: RawClient, any_format: str, length: int | None, sent: bytes
) -> None:
    silent = full.route(f"silent-{any_format}", any_format, memory=MEMORY, timeout=120)
    honest = full.route("honest", "http", memory=MEMORY, timeout=20, idle_timeout=1)
    raw.send(request(silent, length, sent))
    assert full.call_once_free(honest, echo="served").text == "served"
    assert full.http.get("/stats").json()["Queue"] == 0


def test_a_client_that_sends_no_body_is_answered_after_the_timeout(full: RunningNode, raw: RawClient) -> None:
    path = full.route("late", "http", timeout=1)
    raw.send(request(path, 100, b""))
    answer = raw.answer()
    assert answer
    assert answer.status == 408
    assert answer.message == "Request body timeout: its beginning did not arrive within 1 s (timeout of the route)"
    assert raw.is_closed()
    found = full.http.get("/v1/apps/e2e/calls", params={"path": "/late"}).json()
    assert found["calls"] == []


@pytest.mark.parametrize(
    ("length", "sent"),
    [(0, b""), (5, b"hello"), (3 << 20, b"x" * (256 << 10)), (None, b"5\r\nhello\r\n")],
    ids=["none", "small", "large", "chunked"],
)
def test_a_client_that_leaves_while_its_call_waits_leaves_nothing(
    full: RunningNode, any_format: str, length: int | None, sent: bytes
) -> None:
    name = f"left-{any_format}-{length}"
    taken = full.route("taken", "http", memory=MEMORY, timeout=120)
    left = full.route(name, any_format, memory=MEMORY, timeout=120)
    body = b"x" * (3 << 20)
    with RawClient(full.url) as holder:
        holder.send(request(taken, len(body), body[:-1]))  # its container is taken until the last byte comes
        assert until(lambda: full.http.get("/stats").json()["Running"] == 1)
        with RawClient(full.url) as leaver:
            leaver.send(request(left, length, sent))
            assert until(lambda: full.http.get("/stats").json()["Queue"] == 1)
        assert until(lambda: full.http.get("/stats").json()["Queue"] == 0)
        holder.send(body[-1:])
        answer = holder.answer()
        assert answer
        assert (answer.status, answer.body) == (200, body)
    assert full.http.get("/v1/apps/e2e/calls", params={"path": f"/{name}"}).json()["calls"] == []


def test_a_client_that_leaves_is_missed_although_its_body_is_not_read(full: RunningNode, hot: str) -> None:
    path = full.route(f"deaf-{hot}", "http", timeout=120)
    orders = quote(json.dumps({"unread": True, "sleep_ms": 3_600_000}))
    with RawClient(full.url) as leaver:
        leaver.send(request(f"{path}?do={orders}", 3 << 20, b"x" * (512 << 10)))
        assert until(lambda: full.http.get("/stats").json()["Running"] == 1)

    def stored() -> list[tuple[str, str]]:
        calls = full.http.get("/v1/apps/e2e/calls", params={"path": f"/deaf-{hot}"}).json()["calls"]
        return [(call["status"], call["error"]) for call in calls]

    assert until(lambda: stored() == [("error", "context canceled")]), stored()
