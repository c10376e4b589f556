"""The json format's input: exact bytes, and what an independent parser makes of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol_events import a_call, stdio_contract

from hearth.contracts import contract_for
from hearth.contracts.base import CallInput
from hearth.contracts.formats import Terms
from hearth.contracts.stdio.exchange import StdioContract


def encoded(call: CallInput, *pieces: bytes) -> bytes:
    encoder = stdio_contract("json").encoder(call)
    assert b"".join([encoder.body(piece) for piece in pieces]) == b""
    return encoder.end()


def test_the_documented_example_is_written_byte_for_byte() -> None:
    headers = {"Content-Type": ["application/json"], "Content-Length": ["16"], "Accept": ["*/*"]}
    assert encoded(a_call(headers=headers, content_length=16), b'{"some":', b'"input"}') == (
        b"{\n"
        b'"call_id":"01C59M8V1MG3G00GZJ00000001"\n'
        b',"content_type":"application/json"\n'
        b',"type":"sync"\n'
        b',"deadline":"2018-01-31T12:00:30.000Z"\n'
        b',"body":"{\\"some\\":\\"input\\"}"\n'
        b',"protocol":{"type":"http"\n'
        b',"method":"POST"\n'
        b',"request_url":"http://h:8080/r/app1/hi?n=2"\n'
        b',"headers":{"Accept":["*/*"],"Content-Length":["16"],"Content-Type":["application/json"]}\n'
        b"}\n"
        b"}\n"
        b"\n"
    )


def test_on_one_line_it_is_the_same_object_and_nothing_after_its_line() -> None:
    call = a_call(headers={"Content-Type": ["text/plain"]}, content_length=7)
    contract = contract_for("json", Terms(json_lines=True))
    assert isinstance(contract, StdioContract)
    encoder = contract.encoder(call)
    encoder.body(b"a\nb\x00\xc3\xa9")
    line = encoder.end()
    assert line == contract.whole_input(call, b"a\nb\x00\xc3\xa9")
    assert line.startswith(b'{"call_id":"01C59M8V1MG3G00GZJ00000001",')
    assert (line.count(b"\n"), line[-3:]) == (1, b"}}\n")
    assert json.loads(line) == json.loads(encoded(call, b"a\nb\x00\xc3\xa9"))
    assert contract.spare_input == 1  # the line end


def test_a_call_without_data_has_empty_texts() -> None:
    call = json.loads(encoded(a_call(method="GET", content_length=None, call_type="async")))
    assert call == {
        "call_id": "01C59M8V1MG3G00GZJ00000001",
        "content_type": "",
        "type": "async",
        "deadline": "2018-01-31T12:00:30.000Z",
        "body": "",
        "protocol": {"type": "http", "method": "GET", "request_url": "http://h:8080/r/app1/hi?n=2", "headers": {}},
    }


def test_characters_that_are_special_to_html_and_javascript_are_escaped() -> None:
    data = encoded(a_call(url="http://h/a?b&c", content_length=None), "<&>\u2028\u2029\u20ac".encode())
    assert b'"body":"\\u003c\\u0026\\u003e\\u2028\\u2029\xe2\x82\xac"' in data
    assert b'"request_url":"http://h/a?b\\u0026c"' in data
    assert json.loads(data)["body"] == "<&>\u2028\u2029\u20ac"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"a\xffb", "a\ufffdb"),
        (b"\xe2\x82", "\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\x80ok", "\ufffd\ufffdok"),
    ],
)
def test_bytes_that_are_no_utf8_are_replaced_one_by_one_and_told(body: bytes, text: str) -> None:
    encoder = stdio_contract("json").encoder(a_call(content_length=len(body)))
    encoder.body(body)
    assert not encoder.lossy
    assert json.loads(encoder.end())["body"] == text
    assert encoder.lossy


def test_a_character_may_arrive_in_two_pieces() -> None:
    encoder = stdio_contract("json").encoder(a_call(content_length=3))
    encoder.body(b"\xe2\x82")
    encoder.body(b"\xac")
    assert json.loads(encoder.end())["body"] == "\u20ac"
    assert not encoder.lossy


def test_header_bytes_are_read_as_utf8() -> None:
    headers = {"X-A": ["\u20ac".encode().decode("latin-1"), "\xe9", "\u20ac", "\ud800"]}
    assert json.loads(encoded(a_call(headers=headers)))["protocol"]["headers"] == {
        "X-A": ["\u20ac", "\ufffd", "\u20ac", "\ufffd"]
    }


header_texts = st.text(st.characters(max_codepoint=127), max_size=10)


@given(
    body=st.text(max_size=50),
    headers=st.dictionaries(header_texts, st.lists(header_texts, max_size=3), max_size=4),
    url=st.text(max_size=20),
    call_id=st.text(max_size=20),
)
def test_an_independent_parser_reads_what_was_sent(
    body: str, headers: dict[str, list[str]], url: str, call_id: str
) -> None:
    data = encoded(a_call(headers=headers, url=url, call_id=call_id, content_length=None), body.encode())
    assert data.endswith(b"\n}\n}\n\n")
    assert b"\n\n" not in data[:-2]  # the empty line comes only at the end
    assert data.index(b"\n}") == len(data) - 6  # no line before the last two begins with a brace
    call = json.loads(data)
    assert (call["body"], call["call_id"]) == (body, call_id)
    assert call["protocol"]["request_url"] == url
    assert call["protocol"]["headers"] == headers
    assert list(call["protocol"]["headers"]) == sorted(headers)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("text", ['\u00e9\u20ac\U0001f600<&>"\\\n\0\u2028'.encode(), b"a\xffb\xe2\x82c\xf0\x9f"])
def test_a_body_in_pieces_is_written_like_one_in_one_piece(text: bytes, size: int) -> None:
    call = a_call(content_length=len(text))
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert encoded(call, *pieces) == encoded(call, text)
    unknown = a_call(content_length=None)
    assert encoded(unknown, *pieces) == encoded(unknown, text)


@pytest.mark.parametrize("size", [65_000, 66_000, 1_000_000])
def test_a_large_object_is_written_in_several_pieces(size: int) -> None:
    encoder = stdio_contract("json").encoder(a_call(content_length=None))
    for start in range(0, size, 50_000):
        encoder.body(b"<" * min(50_000, size - start))
    first = encoder.end()
    rest = list(encoder.rest())
    assert json.loads(b"".join([first, *rest]))["body"] == "<" * size
    assert all(len(piece) <= 6 * 50_000 + 1000 for piece in [first, *rest])
    assert len(first) > 64 * 1024
    assert list(encoder.rest()) == []
