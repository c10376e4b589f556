"""What clients may send over HTTP/1.1, and what they may not: raw bytes against a node."""

from __future__ import annotations

import contextlib
import json
import select
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.raw_http import RawClient

LIMIT = 1000
HEAD_TIMEOUT_S = 1


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with a short head timeout and a small body limit; its log must hold no traceback."""
    data = tmp_path_factory.mktemp("front")
    image = build_multi(data, data / "source")
    limits = {"FN_HEADER_TIMEOUT_S": str(HEAD_TIMEOUT_S), "FN_MAX_REQUEST_SIZE": str(LIMIT), "FN_LOG_LEVEL": "debug"}
    with running_node("process", data, image, **limits) as node:
        yield node
    log = (data / "server.log").read_text()
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if not line.startswith("time=")] == []


@pytest.fixture
def raw(front: RunningNode) -> Iterator[RawClient]:
    """A connection to it."""
    with RawClient(front.url) as client:
        yield client


def get(path: str, *headers: str) -> str:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""])


def send_for_ever(raw: RawClient, line: str) -> None:
    while True:
        raw.send(line)


def post(path: str, body: str, *headers: str) -> str:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", body])


# -- the head's time ----------------------------------------------------------------------------------------------


def test_slow_heads_are_cut_and_others_are_served(front: RunningNode) -> None:
    path = front.route("others", "http")
    clients: list[RawClient] = []
    try:
        for number in range(200):
            clients.append(RawClient(front.url))
            clients[-1].send(get(path, "X-Slow: y")[: -(1 + number % 20)])
        assert [front.call(path, echo=str(n)).text for n in range(20)] == [str(n) for n in range(20)]
        answers = [client.answer() for client in clients]
        assert {answer.status for answer in answers if answer} == {408}
        assert {answer.message for answer in answers if answer} == {"Request header timeout"}
        assert all(client.is_closed() for client in clients)
    finally:
        for client in clients:
            client.__exit__()


def test_a_head_that_comes_byte_by_byte_is_cut(raw: RawClient) -> None:
    head = get("/version", "X-Long: " + "y" * 1000)
    for character in head:
        raw.send(character)
        if not raw.quiet_for(0.1):
            break
    answer = raw.answer()
    assert answer is not None
    assert answer.status == 408


@pytest.mark.parametrize("before", ["", "\r\n\r\n"])
def test_a_client_that_asks_nothing_is_cut(raw: RawClient, before: str) -> None:
    raw.send(before)
    assert raw.is_closed()


@pytest.mark.parametrize("begun", ["G", "\r\n", "GET /version HTTP/1.1\r\nHost"])
def test_the_second_head_of_a_connection_is_timed_too(raw: RawClient, begun: str) -> None:
    raw.send(get("/version"))
    assert raw.answer()
    raw.send(begun)
    answer = raw.answer()
    assert answer is None if begun == "\r\n" else answer and answer.status == 408
    assert raw.is_closed()


def test_bodies_and_answers_are_not_timed(front: RunningNode, raw: RawClient) -> None:
    path = front.route("patient", "http")
    body = '{"sleep_ms":1300,"echo":"at last"}'
    request = post(path, body)
    raw.send(request[: -len(body)])
    assert raw.quiet_for(HEAD_TIMEOUT_S * 1.3)
    raw.send(body + "GET /ver")  # the next head is late, but not while this answer is awaited
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.body) == (200, b"at last")
    raw.send("sion HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert raw.answer()


# -- connections --------------------------------------------------------------------------------------------------


def test_a_connection_serves_many_requests(front: RunningNode, raw: RawClient) -> None:
    path = front.route("kept", "http")
    for number in range(5):
        raw.send(post(path, f"body {number}") if number % 2 else get("/version"))
        answer = raw.answer()
        assert answer
        assert answer.body == (f"body {number}".encode() if number % 2 else b'{"version":"0.3.753"}')


def test_pipelined_requests_are_answered_in_order(front: RunningNode, raw: RawClient) -> None:
    path = front.route("piped", "http")
    raw.send("".join(post(path, f'{{"sleep_ms":{40 - n * 10},"echo":"{n}"}}') for n in range(4)) + get("/version"))
    assert [(answer := raw.answer()) and answer.body for _ in range(5)] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b'{"version":"0.3.753"}',
    ]


@pytest.mark.parametrize(("version", "header"), [("1.1", "Connection: close"), ("1.0", "X: y")])
def test_a_client_may_want_the_connection_closed(raw: RawClient, version: str, header: str) -> None:
    raw.send(f"GET /version HTTP/{version}\r\nHost: localhost\r\n{header}\r\n\r\n")
    answer = raw.answer()
    assert answer
    assert answer.status == 200
    assert raw.is_closed()


@pytest.mark.parametrize("path", ["/v1/apps/expected", "/r/e2e/expects"])
def test_a_client_that_expects_is_told_to_continue(front: RunningNode, raw: RawClient, path: str) -> None:
    front.route("expects", "http")
    front.http.post("/v1/apps", json={"app": {"name": "expected"}})
    body = '{"app":{}}'
    raw.send(post(path, body, "Expect: 100-continue").replace("POST /v1", "PATCH /v1")[: -len(body)])
    interim = raw.answer()
    assert interim
    assert interim.status == 100
    raw.send(body)
    answer = raw.answer()
    assert answer
    assert answer.status == 200


def test_an_old_client_is_not_told_to_continue(front: RunningNode, raw: RawClient) -> None:
    path = front.route("expects", "http")
    raw.send(post(path, "body", "Expect: 100-continue").replace("HTTP/1.1", "HTTP/1.0"))
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.body) == (200, b"body")


def test_a_client_that_expects_too_much_is_not_told_to_continue(raw: RawClient) -> None:
    raw.send(
        f"POST /v1/apps HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    )
    answer = raw.answer()
    assert answer
    assert answer.status == 413


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upgrade_is_not_taken(front: RunningNode, raw: RawClient, method: str) -> None:
    path = front.route("upgraded", "http")
    request = post(path, "body", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    raw.send(request if method == "POST" else request.replace("POST", "GET").replace("4\r\n", "0\r\n")[:-4])
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.body) == (200, b"body" if method == "POST" else b"")
    raw.send(get("/version"))
    assert raw.answer()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "DELETE", "TRACE", "CONNECT", "HEAD"])
def test_every_method_calls(front: RunningNode, raw: RawClient, method: str) -> None:
    path = front.route("methods", "json")
    raw.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = raw.answer(method)
    assert answer
    assert (answer.status, answer.body) == (200, b"")
    assert "fn_call_id" in answer.headers


# -- what is no HTTP ----------------------------------------------------------------------------------------------

CHUNKED = "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("path", ["/v1/apps", "/r/e2e/malformed"])
@pytest.mark.parametrize(
    "request_text",
    [
        "garbage\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET\r\n\r\n",
        "GET {path} HTTP/3.9\r\n\r\n",
        "GET {path}\x01 HTTP/1.1\r\n\r\n",
        "GET h\xe4 HTTP/1.1\r\n\r\n",
        "CONNECT host:443 HTTP/1.1\r\n\r\n",
        "CONNECT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nGET /",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5_0\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: five\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 6\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x5\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + "\r\n5\nhello\n0\n\n",
        CHUNKED + "\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
        CHUNKED + "\r\n0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + "\r\nffffffffffffffffff\r\nhello",
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Folded: a\r\n b\r\n\r\n",
        "GET {path} HTTP/1.1\r\n Host: localhost\r\n\r\n",
        "GET {path} HTTP/1.1\nHost: h\n\n",
        "GET {path} HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
        "GET {path}\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET {path} /other HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET {path}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET {path} HTTP/1.1\r\nX: y\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET {path}?" + "y" * 70_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
        CHUNKED + "Content-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + "\r\nzz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + "\r\n-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + "\r\n5\r\nhello and more\r\n0\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(front: RunningNode, raw: RawClient, path: str, request_text: str) -> None:
    front.route("malformed", "http")
    raw.send(request_text.replace("{path}", path))
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.message) == (400, "Invalid HTTP request received.")
    assert raw.is_closed()
    assert front.call("/r/e2e/malformed", echo="fine").text == "fine"


def test_a_head_without_end_is_refused(raw: RawClient) -> None:
    raw.send("GET /version HTTP/1.1\r\nHost: localhost\r\n")
    line = "X-Many: " + "y" * 1000 + "\r\n"
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        send_for_ever(raw, line)


def test_garbage_behind_a_request_does_not_enter_its_answer(front: RunningNode, raw: RawClient) -> None:
    path = front.route("behind", "http")
    raw.send(post(path, '{"sleep_ms":200,"echo":"mine"}') + "\x00garbage\r\n\r\n")
    answer = raw.answer()
    assert answer
    assert answer.body == b"mine"
    refusal = raw.answer()
    assert refusal
    assert refusal.status == 400
    assert raw.is_closed()


@pytest.mark.parametrize("broken", ["GET\r\n\r\n", CHUNKED.replace("{path}", "/version") + "\r\nzz\r\n"])
@pytest.mark.parametrize("before", [1, 3])
def test_what_came_before_garbage_is_answered_first(
    front: RunningNode, raw: RawClient, before: int, broken: str
) -> None:
    path = front.route("before-garbage", "http")
    raw.send("".join(post(path, f'{{"sleep_ms":50,"echo":"{n}"}}') for n in range(before)) + broken + get("/version"))
    assert [(answer := raw.answer()) and answer.body for _ in range(before)] == [b"%d" % n for n in range(before)]
    refusal = raw.answer()
    assert refusal
    assert (refusal.status, refusal.message) == (400, "Invalid HTTP request received.")
    assert raw.is_closed()


def test_more_requests_at_once_than_can_wait_are_refused(raw: RawClient) -> None:
    raw.send(get("/version") * 1000)
    answers = []
    while (answer := raw.answer()) is not None:
        answers.append(answer)
    assert 200 < len(answers) < 1000
    assert (answers[-1].status, answers[-1].message) == (429, "More than 200 requests sent ahead")
    assert {answer.status for answer in answers[:-1]} == {200}


# -- heads and trailers that are too large --------------------------------------------------------------------------


def test_too_many_fields_are_refused(raw: RawClient) -> None:
    raw.send(get("/version", *(f"x{n}: y" for n in range(1000))))
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.message) == (431, "More than 1000 request header fields")
    assert raw.is_closed()


TRAILERS_TOO_LARGE = "Request trailers or chunk extensions larger than 16384 bytes"


@pytest.mark.parametrize("path", ["/v1/apps", "/r/e2e/trailing"])
@pytest.mark.parametrize("line", ["X-Many: " + "y" * 100 + "\r\n", "y" * 100], ids=["many", "one"])
def test_trailers_without_end_are_refused(front: RunningNode, raw: RawClient, path: str, line: str) -> None:
    front.route("trailing", "http")
    raw.send(CHUNKED.replace("{path}", path) + "\r\n3\r\nabc\r\n0\r\nX-Long: y")
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        send_for_ever(raw, line * 100)


@pytest.mark.parametrize("pieces", [1, 17])
def test_large_trailers_are_refused(front: RunningNode, raw: RawClient, pieces: int) -> None:
    path = front.route("trailing", "http")
    trailer = "\r\n".join(f"X-{number}: {'y' * 1000}" for number in range(17)) + "\r\n\r\n"
    text = CHUNKED.replace("{path}", path) + "\r\n3\r\nabc\r\n0\r\n" + trailer
    size = len(text) // pieces + 1
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may refuse before the last piece
        for start in range(0, len(text), size):
            raw.send(text[start : start + size])
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.message) == (431, TRAILERS_TOO_LARGE)
    assert raw.is_closed()


def test_small_trailers_are_dropped(front: RunningNode, raw: RawClient) -> None:
    path = front.route("small-trailer", "json")
    body = '{"tell":true}'
    chunk = f"{len(body):x}\r\n{body}\r\n0\r\n"
    raw.send(CHUNKED.replace("{path}", path) + f"\r\n{chunk}X-Trailer: y\r\nHost: other\r\n\r\n" + get("/version"))
    answer = raw.answer()
    assert answer
    assert answer.status == 200
    assert "X-Trailer" not in json.loads(answer.body)["headers"]
    assert raw.answer()


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([f"X-Big: {'y' * 131_000}"], "X-Big has 131007 bytes"),
        ([f"X-Big: {'y' * 100_000}", f"X-Big: {'y' * 31_000}"], "X-Big has 131009 bytes"),
        ([f"X-{n}: {'y' * (60_000 + 100 * n)}" for n in range(10)], "bytes together, 60905 of them in X-9"),
    ],
)
def test_headers_that_no_environment_holds_are_refused(
    front: RunningNode, raw: RawClient, kind: str, fields: list[str], says: str
) -> None:
    path = front.route(f"large-{kind}", "default", type=kind)
    raw.send(get(path, *fields))
    answer = raw.answer()
    assert answer
    assert answer.status == 431
    assert says in answer.message
    assert "fn_call_id" in answer.headers


def test_headers_that_an_environment_holds_reach_the_function(front: RunningNode, raw: RawClient) -> None:
    path = front.route("largest", "default")
    sizes = {"X-Large": 129_000, "X-A": 120_000, "X-B": 120_000, "X-C": 120_000}
    fields = [f"{name}: {'y' * size}" for name, size in sizes.items()]
    raw.send(get(f"{path}?do={quote(json.dumps({'tell': True}))}", *fields))
    answer = raw.answer()
    assert answer
    assert answer.status == 200, answer.body
    env = json.loads(answer.body)["env"]
    assert {name: len(env[f"FN_HEADER_{name}"]) for name in sizes} == sizes


# -- bytes above ASCII ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3, 200])
def test_raw_bytes_in_a_target_are_percent_encoded(front: RunningNode, raw: RawClient, pieces: int) -> None:
    path = front.route("zo\u00eb", "json").encode()
    do = quote(json.dumps({"tell": True})).encode()
    text = b"GET %b?do=%b&name=Zo\xc3\xab\xff HTTP/1.1\r\nHost: h\r\nX-Uni: \xc3\xa9\r\n\r\n" % (path, do)
    size = len(text) // pieces + 1
    for start in range(0, len(text), size):
        raw.send(text[start : start + size])
    answer = raw.answer()
    assert answer
    assert answer.status == 200
    call = json.loads(answer.body)
    assert call["call"]["protocol"]["request_url"] == f"http://h/r/e2e/zo%C3%AB?do={do.decode()}&name=Zo%C3%AB%FF"
    assert call["headers"]["X-Uni"] == ["\u00e9"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_bytes_of_a_header_reach_the_environment_unchanged(front: RunningNode, raw: RawClient, kind: str) -> None:
    path = front.route(f"bytes-{kind}", "default", type=kind)
    do = quote(json.dumps({"tell": True}))
    raw.send(get(f"{path}?do={do}").replace("\r\n\r\n", "\r\nX-Uni: \xc3\xa9\r\nX-Bad: a\xffb\r\n\r\n"))
    answer = raw.answer()
    assert answer
    told = answer.body
    if kind == "async":
        accepted = httpx.Response(202, headers={"fn_call_id": answer.headers["fn_call_id"]}, content=b"")
        front.ended(accepted)
        told = front.log(accepted).encode()
    env = json.loads(told)["env"]
    assert env["FN_HEADER_X-Uni"] == "\u00e9"
    assert env["FN_HEADER_X-Bad"].encode("utf-8", "surrogateescape") == b"a\xffb"


@pytest.mark.parametrize("format_name", ["http", "http-stream"])
def test_bytes_of_a_header_of_an_async_call_reach_a_warm_function_unchanged(
    front: RunningNode, raw: RawClient, format_name: str
) -> None:
    path = front.route(f"later-bytes-{format_name}", format_name, type="async")
    do = quote(json.dumps({"tell": True}))
    raw.send(get(f"{path}?do={do}").replace("\r\n\r\n", "\r\nX-Uni: \xc3\xa9\r\nX-Bad: a\xffb\r\n\r\n"))
    answer = raw.answer()
    assert answer
    accepted = httpx.Response(202, headers={"fn_call_id": answer.headers["fn_call_id"]}, content=b"")
    front.ended(accepted)
    told = front.log(accepted)  # the function reads headers as ISO 8859-1
    assert '"X-Uni": ["\\u00c3\\u00a9"]' in told
    assert '"X-Bad": ["a\\u00ffb"]' in told


# -- answers without a body, and without success ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_gets_no_type(front: RunningNode, hot: str, status: int) -> None:
    path = front.route(f"bodiless-{hot}", hot)
    answer = front.call(path, status=status)
    assert answer.status_code == status
    assert "content-type" not in answer.headers
    assert front.call(path, status=status, headers={"Content-Type": "a/b"}).headers["content-type"] == "a/b"


def test_a_failure_after_the_start_tells_how_long_the_call_waited(front: RunningNode, any_format: str) -> None:
    path = front.route(f"waited-{any_format}", any_format)
    answer = front.call(path, exit=3)
    assert answer.status_code == 502
    assert answer.headers["xxx-fxlb-wait"]


def test_a_failure_before_the_start_tells_no_wait(front: RunningNode) -> None:
    front.http.put("/v1/apps/e2e/routes/noimage", json={"route": {"image": "none:1", "format": "http"}})
    answer = front.call("/r/e2e/noimage")
    assert answer.status_code == 404
    assert "xxx-fxlb-wait" not in answer.headers


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("http://other/version", 200, '{"version":"0.3.753"}'),  # the form that proxies are sent
        ("http://other/r/e2e/none", 404, "Route not found"),
        ("/r/e2e/../../v1/apps", 404, "Route not found"),  # dots stay within the app
        ("/r/%2e%2e/v1/apps", 404, "App not found"),
        ("//v1/apps", 404, "Path not found: //v1/apps"),
        ("/v1/apps/a%00b", 400, "Path malformed"),
        ("/v1/none%0d%0aSet-Cookie:x", 404, "Path not found"),
        ("/v1/apps/%ff%fe", 404, "App not found"),
        ("/v1/apps/%zz", 404, "App not found"),
        ("*", 404, "Path not found: *"),
        ("http:///version", 400, "Invalid HTTP request"),
        ("http://me@other/version", 400, "Invalid HTTP request"),
        ('http://ot"her/version', 400, "Invalid HTTP request"),
        ("ftp://other/version", 400, "Invalid HTTP request"),
        ("other:80/version", 400, "Invalid HTTP request"),
        ("/version#/v1/apps", 400, "Invalid HTTP request"),
        ("/version%23x", 404, "Path not found: /version#x"),
    ],
)
def test_strange_targets_mean_one_thing(
    front: RunningNode, raw: RawClient, target: str, status: int, says: str
) -> None:
    front.route("any", "http")  # so that the app exists
    raw.send(get(target))
    answer = raw.answer()
    assert answer
    assert answer.status == status
    assert says.encode() in answer.body
    assert "set-cookie" not in answer.headers


def test_a_redirect_cannot_carry_a_header(raw: RawClient) -> None:
    raw.send(get("/v1/apps/a%0d%0aSet-Cookie:x/"))
    answer = raw.answer()
    assert answer
    assert (answer.status, answer.headers["location"]) == (301, "/v1/apps/a%0D%0ASet-Cookie%3Ax")
    assert "set-cookie" not in answer.headers


def test_a_body_hides_no_request(raw: RawClient) -> None:
    hidden = get("/stats") + "and more"
    raw.send(get("/version", f"Content-Length: {len(hidden)}") + hidden + get("/healthz"))
    answers = [raw.answer(), raw.answer()]
    assert [answer and answer.body for answer in answers] == [b'{"version":"0.3.753"}', b'{"status":"ok"}']


# -- the body's size ----------------------------------------------------------------------------------------------


def sized(path: str, body: bytes, chunked: bool, method: str = "POST") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if not chunked:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]))
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_api_s_bodies_are_limited(front: RunningNode, raw: RawClient, size: int, chunked: bool) -> None:
    front.http.post("/v1/apps", json={"app": {"name": "sized"}})
    raw.send(sized("/v1/apps/sized", b'{"app":{}}'.ljust(size), chunked, "PATCH"))
    answer = raw.answer()
    assert answer
    if size <= LIMIT:
        assert answer.status == 200
    else:
        text = f"Content-Length too large for this server, {size} > max {LIMIT}"
        assert (answer.status, answer.message) == (413, text)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_bodies_of_calls_are_limited(
    front: RunningNode, raw: RawClient, any_format: str, size: int, chunked: bool
) -> None:
    path = front.route(f"sized-{any_format}", any_format)
    raw.send(sized(path, b"x" * size, chunked))
    answer = raw.answer()
    assert answer
    if size <= LIMIT:
        assert (answer.status, answer.body) == (200, b"x" * size)
    else:
        assert answer.status == 413
        assert answer.message == f"Content-Length too large for this server, {size} > max {LIMIT}"
    assert front.call(path, echo="next").text == "next"


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_payloads_of_async_calls_are_limited(front: RunningNode, raw: RawClient, size: int, chunked: bool) -> None:
    path = front.route("sized-later", "http", type="async")
    raw.send(sized(path, b"x" * size, chunked))
    answer = raw.answer()
    assert answer
    if size <= LIMIT:
        assert answer.status == 202
    else:
        assert answer.status == 413


# -- the log ------------------------------------------------------------------------------------------------------

FORGED = "\ntime=2026 level=fatal msg=forged\r\x1b[2J\u2028\x85forged"


@pytest.mark.parametrize("format_name", ["default", "http", "json"])
def test_nobody_writes_lines_into_the_server_s_log(front: RunningNode, format_name: str) -> None:
    path = front.route(f"forging-{format_name}", format_name)
    front.call(path, echo="x", say=FORGED)
    front.http.get(f"/v1/none{quote(FORGED)}")
    front.http.post(path, content=FORGED.encode(), headers={"X-Forged": "forged"})
    route = {"image": f"none{FORGED}", "format": format_name}
    front.http.put("/v1/apps/e2e/routes/forged", json={"route": route})
    assert front.call("/r/e2e/forged", echo="x").status_code >= 400
    lines = (front.data / "server.log").read_text().splitlines()
    assert any("forged" in line for line in lines)
    assert [line for line in lines if not line.startswith("time=")] == []


# -- what functions and routes say --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 299, 404, 599, 600, 799, 999])
def test_any_status_of_a_function_reaches_the_client(front: RunningNode, hot: str, status: int) -> None:
    path = front.route(f"status-{hot}", hot)
    answer = front.call(path, status=status, echo="body")
    assert (answer.status_code, answer.text) == (status, "body")


def test_strange_headers_of_a_route_harm_no_answer(front: RunningNode) -> None:
    headers = {
        "X Blank": ["1"],
        "X:Colon": ["1"],
        "": ["1"],
        "\u00c4": ["1"],
        "X-Line": ["a\r\nSet-Cookie: b"],
        "X-Control": ["a\x00b\x7fc"],
        "X-Unicode": ["\u20ac"],
        "Connection": ["close"],
        "Transfer-Encoding": ["chunked"],
        "Content-Length": ["3"],
        "Fn_call_id": ["forged"],
    }
    path = front.route("strange", "http")
    # The API refuses such headers; a database of Fn may hold them.
    with contextlib.closing(sqlite3.connect(front.data / "fn.db")) as database, database:
        changed = database.execute("UPDATE routes SET headers = ? WHERE path = '/strange'", [json.dumps(headers)])
        assert changed.rowcount == 1
    for orders in ({"echo": "a body of its own"}, {"exit": 1}):
        answer = front.call(path, **orders)
        assert "forged" not in answer.headers["fn_call_id"]
        assert answer.headers["x-line"] == "a  Set-Cookie: b"
        assert answer.headers["x-control"] == "a b c"
        assert answer.headers.get_list("content-length") == [str(len(answer.content))]
        assert not {"set-cookie", "connection", "transfer-encoding", "x blank"} & set(answer.headers)


@pytest.mark.parametrize("name", ["X Blank", "X:Colon", "", "\u00c4"])
def test_a_strange_header_of_a_function_is_an_invalid_answer(front: RunningNode, name: str) -> None:
    path = front.route("strange-function", "json")
    answer = front.call(path, echo="x", headers={name: "1"})
    assert answer.status_code == 502
    assert answer.json()["error"]["message"].startswith("invalid json response from function err: ")
    assert front.call(path, echo="next").text == "next"


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[RunningNode]:
    """A node that gives heads as much time as they need."""
    with running_node("process", tmp_path, "none:1", FN_HEADER_TIMEOUT_S="60") as node:
        yield node


def test_large_heads_of_many_connections_do_not_fill_the_memory_of_a_node(patient: RunningNode) -> None:
    beginning = "GET /version HTTP/1.1\r\nHost: localhost\r\nX: "
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(patient.url)) for _ in range(80)]
        for client in clients:
            with contextlib.suppress(ConnectionError):  # refused already
                client.send(beginning + "x" * 1_000_000)
        (first, *_), _, _ = select.select(clients, [], [], 60)
        answer = first.answer()
        assert answer is not None
        assert (answer.status, answer.message) == (503, "Timed out - server too busy")
        assert patient.http.get("/version").status_code == 200, "a small head is served"
    with RawClient(patient.url) as client:
        client.send(f"{beginning}{'x' * 1_000_000}\r\n\r\n")
        answer = client.answer()
        assert answer is not None
        assert answer.status == 200, "those who held them are gone"
