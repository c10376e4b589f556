"""A call in one piece, without encoder and decoder: byte for byte what those write and read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.agent import Sink
from tests.unit.protocol_events import a_call, outcome, stdio_contract

from hearth.contracts.base import CallInput, Head
from hearth.contracts.stdio.default import HoldingSink
from hearth.contracts.stdio.http import HttpContract
from hearth.contracts.stdio.json import JsonContract

FORMATS = ("default", "http", "json")
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 2\r\n\r\n"
OBJECT = b'{"body":"hi"}'

header_texts = st.text("aB:\r\n\0 \u20ac\xe9", min_size=1, max_size=8)
calls: Any = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "HEAD", "PURGE"]),
        "call_type": st.sampled_from(["sync", "async"]),
        "url": st.sampled_from(["http://h/r/a/b?c=d", "http://h?x=/y z", "http://", "", "http://h/\xe4"]),
        "headers": st.dictionaries(
            header_texts | st.sampled_from(["Connection", "User-Agent"]), st.lists(header_texts, max_size=2), max_size=4
        ),
    }
)


@pytest.mark.parametrize("format_name", FORMATS)
@given(changes=calls, body=st.binary(max_size=20) | st.text(max_size=20).map(str.encode))
def test_input_in_one_piece_is_what_the_encoder_writes(format_name: str, changes: dict[str, Any], body: bytes) -> None:
    contract = stdio_contract(format_name)
    call = a_call(**changes, content_length=len(body))
    encoder = contract.encoder(call)
    expected = encoder.body(body) + encoder.end()
    assert contract.whole_input(call, body) == (None if encoder.lossy else expected)


def check(format_name: str, call: CallInput, data: bytes, before: bytes = b"") -> bool:
    """Check that the whole answer is what the decoder reads; return whether there is one.

    Args:
        format_name: The format.
        call: The call that is answered.
        data: The answer.
        before: The answer to the call before.
    """
    contract = stdio_contract(format_name)
    contract.whole_answer(a_call(), before)
    whole = contract.whole_answer(call, data)
    if whole is not None:
        assert outcome(contract.decoder(call), [data]) == (*whole, False)
    return whole is not None


http_fragments = st.sampled_from(
    [
        *(b"HTTP/1.1 ", b"200", b"100", b"204", b" OK", b"\r\n", b"\n", b"\r", b"\r\n\r\n", SIZED, b"hi"),
        *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: x"),
        *(b"0", b"1", b"5;", b"\x00", b" ", b":", b"x", b"\xff"),
    ]
)
json_fragments = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"null", b"1", b" ", b"\n", b"\xff", b'"a"', OBJECT),
        *(
            b'"body":"hi"',
            b'"protocol":{"status_code":204}',
            b'"protocol":{"headers":{"A":["b"]}}',
            b'"content_type":7',
        ),
    ]
)


@settings(max_examples=400)
@given(
    data=st.lists(http_fragments, max_size=12).map(b"".join),
    method=st.sampled_from(["GET", "HEAD"]),
    before=st.sampled_from([b"", SIZED + b"hi", OK + b"Content-Length: 0\n\n", b"HTTP/1.1 204 OK\r\n\r\n"]),
)
@example(data=OK + b"\n \n\n", method="GET", before=b"")
@example(data=OK + b"X: y\n\r\nContent-Length: 0\r\n\r\n", method="GET", before=b"")
@example(data=SIZED + b"no", method="GET", before=SIZED + b"hi")
@example(data=SIZED, method="HEAD", before=SIZED + b"hi")
@example(data=SIZED + b"hi\n", method="GET", before=SIZED + b"hi")
@example(data=SIZED + b"hi" + SIZED + b"hi", method="GET", before=SIZED + b"hi")
def test_no_output_in_one_piece_is_read_as_another_http_answer(data: bytes, method: str, before: bytes) -> None:
    check("http", a_call(method=method), data, before)


def test_the_same_head_for_one_function_is_that_of_each_of_its_answers() -> None:
    contract = stdio_contract("http")
    two = [b"HTTP/1.1 %d OK\r\nX-A: %d\r\nContent-Length: 2\r\n\r\nhi" % (status, status) for status in (200, 201)]
    answers = [contract.whole_answer(a_call(), data) for data in (*two, *two)]
    assert [answer[0].status for answer in answers if answer] == [200, 201, 200, 201]
    assert [answer[0].headers[0] for answer in answers if answer] == [("X-A", "200"), ("X-A", "201")] * 2


@settings(max_examples=400)
@given(data=st.lists(json_fragments, max_size=12).map(b"".join), method=st.sampled_from(["GET", "HEAD"]))
def test_no_output_in_one_piece_is_read_as_another_json_answer(data: bytes, method: str) -> None:
    check("json", a_call(method=method), data)


@pytest.mark.parametrize(
    ("format_name", "data", "method", "is_whole"),
    [
        ("http", SIZED + b"hi", "GET", True),
        ("http", b"HTTP/1.0 200\nContent-Length: 2\n\nhi", "GET", True),
        ("http", OK + b"Content-Length: 0\r\n\r\n", "GET", True),
        ("http", b"HTTP/1.1 204 No Content\r\n\r\n", "GET", True),
        ("http", SIZED, "HEAD", True),
        ("http", OK + b"\r\n", "HEAD", True),
        ("http", SIZED + b"h", "GET", False),
        ("http", SIZED + b"hi\n", "GET", False),
        ("http", SIZED + b"hi", "HEAD", False),
        ("http", b"\n" + SIZED + b"hi", "GET", False),
        ("http", OK + b"\r\nhi", "GET", False),
        ("http", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET", False),
        ("http", b"HTTP/1.1 100 Continue\r\n\r\n", "GET", False),
        ("http", b"HTTP/1.1 100 Continue\r\n\r\n", "HEAD", False),
        ("http", OK + b"what is this\r\n\r\n", "GET", False),
        ("http", OK + b"Content-Length: 0\r\nX: " + b"y" * 1024 + b"\r\n\r\n", "GET", False),
        ("json", OBJECT, "GET", True),
        ("json", b"\n " + OBJECT + b"\r\n", "GET", True),
        ("json", OBJECT, "HEAD", True),
        ("json", OBJECT + OBJECT, "GET", False),
        ("json", OBJECT[:-1], "GET", False),
        ("json", b'{"body":7}', "GET", False),
        ("json", b"", "GET", False),
        ("default", b"hi", "GET", False),
    ],
)
def test_which_output_is_an_answer_in_one_piece(format_name: str, data: bytes, method: str, is_whole: bool) -> None:
    assert check(format_name, a_call(method=method), data) is is_whole


def test_limits_hold_for_answers_in_one_piece() -> None:
    assert HttpContract(max_head_bytes=len(SIZED)).whole_answer(a_call(), SIZED + b"hi")
    assert HttpContract(max_head_bytes=len(SIZED) - 1).whole_answer(a_call(), SIZED + b"hi") is None
    assert JsonContract(max_answer_bytes=len(OBJECT)).whole_answer(a_call(), OBJECT)
    assert JsonContract(max_answer_bytes=len(OBJECT) - 1).whole_answer(a_call(), OBJECT) is None


async def test_a_whole_answer_of_a_container_of_its_own_waits_for_the_exit_code() -> None:
    client = Sink()
    sink = HoldingSink(client)
    sink.answer(Head(200, ()), b"hi")
    assert client.body == b""
    await sink.flush()
    assert client.body == b"hi"
