"""Calls cut into any pieces arrive whole; answers are what the platform's own decoders take."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth_fdk.context import Call
from hearth_fdk.framing import FramingError, HttpReader, JsonReader, cold_call, http_answer, json_answer

BODIES = st.lists(
    st.text(max_size=30) | st.sampled_from(['{"a":"}"}', '"', "\\", '\\"}', "\u2028é😀"]), min_size=1, max_size=3
)


def json_message(number: int, body: str, *, lines: bool) -> bytes:
    """A call as the platform writes it: on many lines, or on one."""
    fields: dict[str, Any] = {
        "call_id": f"call{number}",
        "content_type": "text/plain",
        "type": "async",
        "deadline": "2026-01-02T03:04:05.000Z",
        "body": body,
        "protocol": {
            "type": "http",
            "method": "PUT",
            "request_url": "http://h/r/a/b?c",
            "headers": {"X-A": ["1", "2"]},
        },
    }
    text = json.dumps(fields, indent=1 if lines else None)
    return f"{text}\n{chr(10) if lines else ''}".encode()


def http_message(number: int, body: bytes, *, chunked: bool) -> bytes:
    head = (
        "PUT /r/a/b?c HTTP/1.1\r\nHost: h\r\n"
        + ("Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n")
        + f"Fn_call_id: call{number}\r\nFn_deadline: 2026-01-02T03:04:05.000Z\r\nFn_method: PUT\r\n"
        + "Fn_request_url: http://h/r/a/b?c\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
    ).encode()
    if not chunked:
        return head + body
    pieces = [body[:3], body[3:]]
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return head + chunks + b"0\r\nT: t\r\n\r\n"


def seen(call: Call) -> tuple[Any, ...]:
    return call.call_id, call.method, call.request_url, call.headers.all("x-a"), call.body, call.deadline


def expected(bodies: list[bytes]) -> list[tuple[Any, ...]]:
    return [
        (f"call{number}", "PUT", "http://h/r/a/b?c", ["1", "2"], body, "2026-01-02T03:04:05.000Z")
        for number, body in enumerate(bodies)
    ]


@given(BODIES, st.booleans(), st.data())
def test_json_calls_arrive_whole_however_they_are_cut(bodies: list[str], lines: bool, data: st.DataObject) -> None:
    stream = b"".join(json_message(number, body, lines=lines) for number, body in enumerate(bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = JsonReader()
    calls = [
        call
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for call in reader.feed(stream[start:end])
    ]
    assert [seen(call) for call in calls] == expected([body.encode() for body in bodies])
    assert reader.is_idle


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3), st.booleans(), st.data())
def test_http_calls_arrive_whole_however_they_are_cut(bodies: list[bytes], chunked: bool, data: st.DataObject) -> None:
    stream = b"".join(http_message(number, body, chunked=chunked) for number, body in enumerate(bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = HttpReader()
    calls = [
        call
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for call in reader.feed(stream[start:end])
    ]
    assert [seen(call) for call in calls] == expected(bodies)
    assert "fn_call_id" not in calls[0].headers
    assert reader.is_idle


@pytest.mark.parametrize("lines", [False, True])
def test_json_is_complete_at_the_last_brace_and_not_before(lines: bool) -> None:
    message = json_message(0, '{"}\\"', lines=lines)
    end = message.rindex(b"}") + 1
    for cut in range(end):
        reader = JsonReader()
        assert reader.feed(message[:cut]) == []
        assert reader.is_idle is (cut == 0)
        assert len(reader.feed(message[cut:end])) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_http_is_complete_at_the_last_byte_and_not_before(chunked: bool) -> None:
    message = http_message(0, b"abc\r\n0\r\n\r\n", chunked=chunked)
    for cut in range(len(message)):
        reader = HttpReader()
        assert reader.feed(message[:cut]) == []
        assert reader.is_idle is (cut == 0)
        assert len(reader.feed(message[cut:])) == 1


@pytest.mark.parametrize("data", [b"{nonsense}", b'{"a":1]}'])
def test_what_is_no_json_is_said(data: bytes) -> None:
    with pytest.raises(FramingError):
        JsonReader().feed(data)


@pytest.mark.parametrize(
    "data", [b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nbad\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_http_is_said(data: bytes) -> None:
    with pytest.raises(FramingError):
        HttpReader().feed(data)


def test_the_default_format_takes_its_head_from_the_environment() -> None:
    environment = {
        "FN_CALL_ID": "c",
        "FN_METHOD": "GET",
        "FN_REQUEST_URL": "http://h/",
        "FN_DEADLINE": "d",
        "FN_HEADER_X-A": "1, 2",
        "FN_TYPE": "async",
    }
    call = cold_call(environment, b"body")
    assert (call.call_id, call.method, call.request_url, call.deadline) == ("c", "GET", "http://h/", "d")
    assert (call.headers["x-a"], call.body, call.call_type) == ("1, 2", b"body", "async")


def test_answers_without_a_body_send_none() -> None:
    assert http_answer(204, {}, b"x").endswith(b"Content-Length: 0\r\n\r\n")
    assert http_answer(200, {}, b"x", "HEAD").endswith(b"\r\n\r\n")


def test_json_cannot_carry_bytes() -> None:
    with pytest.raises(UnicodeDecodeError):
        json_answer(200, {}, b"\xff")


@pytest.mark.parametrize("value", [b"\xc3\xa9", b"a\xff\xc3", "\u20ac 5".encode()])
def test_a_header_that_is_copied_to_the_answer_keeps_its_bytes(value: bytes) -> None:
    [call] = HttpReader().feed(b"GET / HTTP/1.1\r\nX-Any: %b\r\nContent-Length: 0\r\n\r\n" % value)
    answered = http_answer(200, {"X-Any": call.headers.all("x-any")}, b"")
    assert b"X-Any: %b\r\n" % value in answered
    in_environment = cold_call({"FN_HEADER_X-Any": value.decode("utf-8", "surrogateescape")}, b"")
    assert in_environment.headers["x-any"] == call.headers["x-any"]


def _by_json(stream: bytes) -> list[Any]:
    """The objects of a stream, as the library tells them apart."""
    text, found, at = stream.decode(), [], 0
    decoder = json.JSONDecoder()
    while (at := len(text) - len(text[at:].lstrip())) < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["{", '"', "\\", '\\"}', "]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), min_size=1, max_size=3),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.data(),
)
def test_any_json_is_cut_where_the_library_would(
    messages: list[dict[str, Any]], indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    texts = [json.dumps({**message, "protocol": {}}, indent=indent, ensure_ascii=ascii_only) for message in messages]
    stream = "\n\n".join(texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    seen: list[bytes] = []
    with mock.patch("hearth_fdk.framing.json_call", seen.append):
        reader = JsonReader()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            reader.feed(stream[start:end])
    assert [json.loads(text) for text in seen] == _by_json(stream)
    assert reader.is_idle


def test_a_body_full_of_quotes_is_read_in_few_steps() -> None:
    """Each quote costs no step of the interpreter: the reader would else take seconds for some megabytes."""
    body = '["' + '","'.join("x" * 4 for _ in range(360_000)) + '"]'
    message = json_message(0, body, lines=True)
    steps = 0

    def count(*_: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    reader = JsonReader()
    sys.settrace(count)
    try:
        calls = [call for at in range(0, len(message), 65536) for call in reader.feed(message[at : at + 65536])]
    finally:
        sys.settrace(None)
    assert calls[0].body == body.encode()
    assert steps < 10_000


@pytest.mark.parametrize("value", [b"\xc3\xa9", b"\xe9", b"caf\xc3\xa9 \xff"])
def test_a_header_that_json_carries_keeps_its_bytes(value: bytes) -> None:
    headers = {"X-Uni": [value.decode("utf-8", "surrogateescape")]}
    answer = json.loads(json_answer(200, headers, b""))
    assert answer["protocol"]["headers"] == headers
    (call,) = JsonReader().feed(json.dumps({"protocol": {"headers": headers}}).encode())
    assert call.headers.all("x-uni") == headers["X-Uni"]
