"""The http format's input: exact bytes, and what an independent parser makes of them."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol_events import a_call, stdio_contract

from hearth.contracts.base import CallInput, canonical
from hearth.models.errors import InternalError


class Parsed:
    """One request as httptools reads it."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1

    def values(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.headers if key == name.encode()]


def encoded(call: CallInput, *pieces: bytes) -> bytes:
    encoder = stdio_contract("http").encoder(call)
    return b"".join([encoder.body(piece) for piece in pieces]) + encoder.end()


def test_the_documented_example_is_written_byte_for_byte() -> None:
    headers = {
        "X-Id": ["7"],
        "Content-Length": ["3"],
        "User-Agent": ["curl/7.51.0"],
        "Accept": ["*/*"],
        "Content-Type": ["text/plain"],
    }
    assert encoded(a_call(headers=headers, content_length=3), b"abc") == (
        b"POST /r/app1/hi?n=2 HTTP/1.1\r\n"
        b"Host: h:8080\r\n"
        b"User-Agent: curl/7.51.0\r\n"
        b"Content-Length: 3\r\n"
        b"Accept: */*\r\n"
        b"Content-Type: text/plain\r\n"
        b"Fn_call_id: 01C59M8V1MG3G00GZJ00000001\r\n"
        b"Fn_deadline: 2018-01-31T12:00:30.000Z\r\n"
        b"Fn_method: POST\r\n"
        b"Fn_request_url: http://h:8080/r/app1/hi?n=2\r\n"
        b"X-Id: 7\r\n"
        b"\r\n"
        b"abc"
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE"])
def test_a_request_without_body_says_so_whatever_its_method(method: str) -> None:
    data = encoded(a_call(method=method))
    assert data.startswith(f"{method} /r/app1/hi?n=2 HTTP/1.1\r\nHost: h:8080\r\nContent-Length: 0\r\n".encode())
    assert data.endswith(b"\r\n\r\n")
    assert b"User-Agent" not in data


def test_a_body_of_unknown_length_is_chunked() -> None:
    data = encoded(a_call(content_length=None), b"one ", b"", b"x" * 26)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert b"Content-Length" not in head
    assert body == b"4\r\none \r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"


def test_an_empty_body_of_unknown_length_is_only_the_last_chunk() -> None:
    assert encoded(a_call(content_length=None)).endswith(b"\r\n\r\n0\r\n\r\n")


def test_nothing_is_written_before_the_first_byte_of_the_body() -> None:
    encoder = stdio_contract("http").encoder(a_call(content_length=2))
    assert encoder.body(b"") == b""
    assert encoder.body(b"a").endswith(b"\r\n\r\na")
    assert encoder.body(b"b") == b"b"
    assert encoder.end() == b""


def test_a_body_that_is_longer_than_announced_is_never_written() -> None:
    encoder = stdio_contract("http").encoder(a_call(content_length=3))
    encoder.body(b"ab")
    with pytest.raises(InternalError):
        encoder.body(b"cd")


def test_a_body_that_is_shorter_than_announced_cannot_end() -> None:
    encoder = stdio_contract("http").encoder(a_call(content_length=3))
    encoder.body(b"ab")
    with pytest.raises(InternalError):
        encoder.end()


def test_hop_by_hop_headers_stay_behind_and_credentials_pass() -> None:
    headers = {
        "Connection": ["close, X-Hop", "x-other"],
        "Keep-Alive": ["5"],
        "Proxy-Connection": ["x"],
        "Te": ["trailers"],
        "Trailer": ["X"],
        "Transfer-Encoding": ["gzip"],
        "Upgrade": ["h2c"],
        "Expect": ["100-continue"],
        "X-Hop": ["1"],
        "X-Other": ["2"],
        "Authorization": ["Bearer t"],
    }
    parsed = Parsed(encoded(a_call(headers=headers)))
    names = {name.decode() for name, _ in parsed.headers}
    own = {"Host", "Content-Length", "Fn_call_id", "Fn_deadline", "Fn_method", "Fn_request_url"}
    assert names == own | {"Authorization"}


def test_client_headers_cannot_pose_as_the_platforms() -> None:
    forged = {"Fn_call_id": ["f"], "fn_deadline": ["f"], "Fn_method": ["f"], "FN_REQUEST_URL": ["f"], "Host": ["f"]}
    parsed = Parsed(encoded(a_call(headers=forged | {"Content-Length": ["99"]}, content_length=1), b"x"))
    assert "f" not in [value.decode() for _, value in parsed.headers]
    assert parsed.values("Content-Length") == ["1"]


def test_repeated_headers_keep_their_order_and_names_are_sorted() -> None:
    parsed = Parsed(encoded(a_call(headers={"X-B": ["2", "1"], "X-A-B": ["3"], "X-A": ["4"]})))
    names = [name.decode() for name, _ in parsed.headers if name.startswith(b"X-")]
    assert names == ["X-A", "X-A-B", "X-B", "X-B"]
    assert parsed.values("X-B") == ["2", "1"]


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://h/r/a/b%20c?x=%2F", "h", "/r/a/b%20c?x=%2F"),
        ("https://h:1/r/a", "h:1", "/r/a"),
        ("http://h", "h", "/"),
        ("http://h?x=1", "h", "/?x=1"),
        ("http:///r/a", "", "/r/a"),
        ("http://h/r/a?u=http://o/p", "h", "/r/a?u=http://o/p"),
        ("http://h/ä b\r\nX: y", "h", "/%C3%A4%20b%0D%0AX:%20y"),
    ],
)
def test_the_target_is_path_and_query(url: str, host: str, target: str) -> None:
    parsed = Parsed(encoded(a_call(url=url)))
    assert parsed.url.decode() == target
    assert parsed.values("Host") == [host]


def test_a_value_keeps_the_bytes_it_came_with() -> None:
    data = encoded(a_call(headers={"X-Raw": ["caf\xe9"], "X-Text": ["ok"]}))
    assert b"X-Raw: caf\xe9\r\n" in data
    assert b"X-Text: \xe2\x82\xac\r\n" in encoded(a_call(headers={"X-Text": ["\u20ac"]}))


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(InternalError):
        stdio_contract("http").encoder(a_call(method="GET / HTTP/1.1\r\nX: y\r\n"))


hostile_text = st.text(st.sampled_from("aB:\r\n\0 \t\u20ac\xe9"), max_size=12)


@given(
    headers=st.dictionaries(hostile_text, st.lists(hostile_text, max_size=3), max_size=4),
    host=hostile_text,
    call_id=hostile_text,
    deadline=hostile_text,
)
def test_no_header_can_smuggle_a_line(headers: dict[str, list[str]], host: str, call_id: str, deadline: str) -> None:
    call = a_call(headers=headers, url=f"http://{host}/x", call_id=call_id, deadline=deadline)
    data = encoded(call)
    head, blank, rest = data.partition(b"\r\n\r\n")
    assert (blank, rest) == (b"\r\n\r\n", b"")
    lines = head.split(b"\r\n")
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    kept = [canonical(name) for name, values in headers.items() for _ in values if name in ("a", "aB", "B")]
    assert len(lines) <= 7 + sum(map(len, headers.values()))
    assert {line.split(b":")[0].decode() for line in lines[1:]} <= {
        *("Host", "Content-Length", "Fn_call_id", "Fn_deadline", "Fn_method", "Fn_request_url"),
        *(canonical(name) for name in headers),
    }
    assert len([line for line in lines if line.startswith((b"A:", b"Ab:", b"B:"))]) >= len(kept)


tokens = st.text("abcXYZ019-_", min_size=1, max_size=10).map(lambda name: canonical(f"X{name}"))
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), min_size=1, max_size=20)


@given(
    headers=st.dictionaries(tokens, st.lists(values, min_size=1, max_size=3), max_size=6),
    pieces=st.lists(st.binary(max_size=40), max_size=5),
    chunked=st.booleans(),
)
def test_an_independent_parser_reads_what_was_sent(
    headers: dict[str, list[str]], pieces: list[bytes], chunked: bool
) -> None:
    body = b"".join(pieces)
    length: Any = None if chunked else len(body)
    call = a_call(headers=headers, content_length=length)
    parsed = Parsed(encoded(call, *pieces))
    assert parsed.complete == 1
    assert (parsed.method, parsed.url, parsed.body) == (b"POST", b"/r/app1/hi?n=2", body)
    for name, expected in headers.items():
        assert parsed.values(name) == expected
    if not chunked:
        assert stdio_contract("http").whole_input(call, body) == encoded(call, *pieces)


def test_names_too_long_to_be_remembered_are_sorted_as_others_are() -> None:
    headers = {"X-B": ["2"], "X-" + "a" * 2000: ["1"], "Connection": ["x-c"], "X-C": ["3"]}
    names = [name.decode()[:3] for name, _ in Parsed(encoded(a_call(headers=headers))).headers]
    assert names == ["Hos", "Con", "Fn_", "Fn_", "Fn_", "Fn_", "X-A", "X-B"]
