"""No request holds the event loop: the longest turn of a node's loop while bodies arrive that take long to convert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.support.node import build_multi
from tests.support.raw_http import RawClient
from tests.support.turns import MeasuredNode, measured_node, up_to_thrice
from tests.support.waiting import until

MIB = 1 << 20
HELD = 16 * MIB
#: Text that grows most, or takes longest, in each way of converting it.
TEXTS = {
    "letters": b"x",
    "quotes": b'"',
    "markup": b"<",
    "NUL": b"\0",
    "no UTF-8": b"\xff",
    "no UTF-8 now and then": b"a\xff",
    "two bytes": "\u00e9".encode(),
    "four bytes": "\U0001f600".encode(),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    data = tmp_path_factory.mktemp("turns")
    image = build_multi(data, data / "source")
    with measured_node(data, driver="process", log_level="error") as running:
        httpx.post(f"{running.url}/v1/apps", json={"app": {"name": "e2e"}})
        for name in ("default", "http", "json"):
            for kind in ("sync", "async"):
                route = {"image": image, "format": name, "type": kind, "timeout": 60, "memory": 1024}
                httpx.put(f"{running.url}/v1/apps/e2e/routes/{name}-{kind}", json={"route": route}).raise_for_status()
        yield running


@pytest.fixture
def client(node: MeasuredNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=120) as found:
        yield found


def ended(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The record of an accepted call, once it has ended."""
    found: dict[str, Any] = {}

    def look() -> bool:
        found.update(client.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}").json()["call"])
        return found["status"] not in ("queued", "running")

    assert until(look, 120)
    return found


def filled(text: bytes, size: int) -> bytes:
    return (text * (size // len(text) + 1))[: size - size % len(text)]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/apps", "/v1/apps/e2e/routes"])
@up_to_thrice
def test_a_large_body_of_the_api_is_refused(node: MeasuredNode, client: httpx.Client, path: str, chunked: bool) -> None:
    body = b'{"x":[' + b"{}," * (MIB // 3) + b"{}]}"
    with node.measured() as turns:
        answer = client.post(path, content=iter([body]) if chunked else body)
    assert answer.status_code == 413
    says = answer.json()["error"]["message"]
    assert says.startswith("Content-Length too large for this server, ")
    assert says.endswith(f" > max {MIB}")
    turns.check()


API_BODIES = {
    "many objects": b'{"app":{"name":"x","y":[' + b"{}," * 340_000 + b"{}],",
    "many escaped objects": b'{"app\\u0041":1,"app":{"name":"x","y":[' + b"{}," * 340_000 + b"{}],",
    "many keys": b'{"app":{"name":"x","config":{' + b",".join(b'"k%d":""' % n for n in range(80_000)) + b"},",
    "many odd keys": b'{"app":{"name":"x","config":{' + b",".join(b'"\\ud800%d":""' % n for n in range(55_000)) + b"},",
    "many lists": b'{"app":{"name":"x","y":' + b"[" * 900 + b"],".replace(b",", b"") * 900 + b",",
    "no UTF-8": b'{"app":{"name":"x","config":{"a":"' + b"\xff" * (MIB - 100) + b'"},',
}


@pytest.mark.parametrize("body", API_BODIES.values(), ids=API_BODIES)
@up_to_thrice
def test_a_body_of_the_api_holds_nobody_up(node: MeasuredNode, client: httpx.Client, body: bytes) -> None:
    with node.measured() as turns:
        answer = client.post("/v1/apps", content=body + b'"name":3}}')
    assert answer.status_code == 400
    turns.check()


@pytest.mark.parametrize("format_name", ["default", "http", "json"])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("chunked", [False, True])
@up_to_thrice
def test_a_body_that_memory_does_not_hold_is_refused(
    node: MeasuredNode, client: httpx.Client, format_name: str, kind: str, chunked: bool
) -> None:
    body = bytes(HELD + 1)
    with node.measured() as turns:
        answer = client.post(f"/r/e2e/{format_name}-{kind}", content=iter([body]) if chunked else body)
    if kind == "sync" and format_name != "json":
        assert (answer.status_code, answer.content) == (200, body)
    else:
        text = f"Content-Length too large for this server, {HELD + 1} > max {HELD}"
        assert answer.status_code == 413
        assert (answer.json()["error"]["message"] == text) or chunked
        assert answer.json()["error"]["message"].endswith(f"> max {HELD}")
    turns.check()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@up_to_thrice
def test_an_async_body_holds_nobody_up(node: MeasuredNode, client: httpx.Client, text: bytes) -> None:
    with node.measured() as turns:
        answer = client.post("/r/e2e/http-async", content=filled(text, HELD))
        assert answer.status_code == 202
        call = ended(client, answer)
    assert call["status"] == "success"
    turns.check()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@up_to_thrice
def test_a_body_for_json_and_its_echo_hold_nobody_up(node: MeasuredNode, client: httpx.Client, text: bytes) -> None:
    body = filled(text, HELD // 2)  # its echo grows sixfold
    with node.measured() as turns:
        answer = client.post("/r/e2e/json-sync", content=body)
    assert answer.status_code == 200
    assert answer.content == body.decode("utf-8", "replace").encode()
    turns.check()


@up_to_thrice
def test_the_largest_body_for_json_holds_nobody_up(node: MeasuredNode, client: httpx.Client) -> None:
    with node.measured() as turns:
        answer = client.post("/r/e2e/json-sync?do=%7B%22echo%22%3A%22x%22%7D", content=filled(b"<", HELD))
    assert (answer.status_code, answer.content) == (200, b"x")
    turns.check()


@up_to_thrice
def test_an_async_body_for_json_holds_nobody_up(node: MeasuredNode, client: httpx.Client) -> None:
    with node.measured() as turns:
        answer = client.post("/r/e2e/json-async", content=filled(b"\xff", HELD // 2))
        call = ended(client, answer)
    assert call["status"] == "success"
    turns.check()


@pytest.mark.parametrize("format_name", ["default", "http", "json"])
@up_to_thrice
def test_a_large_answer_holds_nobody_up(node: MeasuredNode, client: httpx.Client, format_name: str) -> None:
    size = 60_000_000
    with node.measured() as turns:
        answer = client.post(f"/r/e2e/{format_name}-sync", json={"size": size})
    assert (answer.status_code, len(answer.content)) == (200, size)
    turns.check()


@up_to_thrice
def test_an_answer_of_many_objects_holds_nobody_up(node: MeasuredNode, client: httpx.Client) -> None:
    raw = '{"x":[' + "{}," * 5_000_000
    with node.measured() as turns:
        answer = client.post("/r/e2e/json-sync", json={"raw": raw})
    assert answer.status_code == 502
    turns.check()


@up_to_thrice
def test_a_flood_of_small_chunks_holds_nobody_up(node: MeasuredNode) -> None:
    with node.measured() as turns, RawClient(node.url) as raw:
        raw.send("POST /r/e2e/http-sync HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.send("1\r\nx\r\n" * 200_000 + "0\r\n\r\n")
        answer = raw.answer()
    assert answer
    assert answer.body == b"x" * 200_000
    turns.check()


@up_to_thrice
def test_a_flood_of_requests_holds_nobody_up(node: MeasuredNode) -> None:
    with node.measured() as turns, RawClient(node.url) as raw:
        raw.send("GET /version HTTP/1.1\r\nHost: h\r\n\r\n" * 7000)
        while raw.answer() is not None:
            pass
    turns.check()


@up_to_thrice
def test_large_heads_hold_nobody_up(node: MeasuredNode, client: httpx.Client) -> None:
    headers = {f"x-{number}": "y" * 500 for number in range(900)}
    with node.measured() as turns:
        for path in ("/v1/apps", "/r/e2e/default-sync", "/r/e2e/http-sync", "/r/e2e/json-sync"):
            assert client.get(path, headers=headers).status_code in (200, 431)
    turns.check()
