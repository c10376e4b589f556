"""The json format's output: one object, exact to the byte, from a stream that goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.protocol_events import a_call, cut, outcome, positions, stdio_contract, summary, two_pieces

from hearth.contracts.base import Head
from hearth.contracts.stdio.codec import Body, Decoder, End, InvalidOutput
from hearth.contracts.stdio.json import JsonContract


def decoder(**call: Any) -> Decoder:
    return stdio_contract("json").decoder(a_call(**call))


def read(text: str | bytes) -> Any:
    return summary(decoder(), [text.encode() if isinstance(text, str) else text])


def head_of(text: str) -> Head:
    head = read(text)[0]
    assert isinstance(head, Head)
    return head


def test_the_documented_example_is_read() -> None:
    protocol = b'{"status_code":200,"headers":{"Other":["v"]}}'
    data = b'{"body":"{\\"x\\":1}","content_type":"application/json","protocol":%b}\n' % protocol
    assert decoder().feed(data) == [
        Head(200, [("Other", "v"), ("Content-Type", "application/json"), ("Content-Length", "7")]),
        Body(b'{"x":1}'),
        End(surplus=False),
    ]


SAMPLES = {
    "plain": b'{"body":"hello"}',
    "pretty": b'\n  {\r\n\t"body" : "a b" ,\n "protocol": { "status_code" : 201 } }\n\n',
    "braces in strings": b'{"body":"}{][\\"}\\\\","x":["]","}"]}',
    "escapes": b'{"body":"\\u20ac\\ud83d\\ude00\\n\\\\\\""}\n',
    "null": b"null\n",
    "empty": b"{}",
    "nested unknowns": b'{"x":{"y":[{},[[]],{"z":null}]},"body":"b","n":-1.5e+3,"t":true}',
    "two objects": b'{"body":"1"}\n{"body":"2"}\n',
    "utf-8": '{"body":"\u20ac\U0001f600"}'.encode(),
    "no utf-8": b'{"body":"\xff\xe2\x82"}',
    "trailing blank in a string": b'{"body":"a }   "}',
    "garbage": b"Hello from the function\n",
    "half garbage": b"{'a': 1}\n",
    "array": b"[1]",
    "surplus letter": b"nullx",
    "unbalanced": b'{"a":]}',
}


@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)
def test_no_split_changes_the_events(data: bytes) -> None:
    whole = outcome(decoder(), [data])
    for pieces in two_pieces(data):
        assert outcome(decoder(), pieces) == whole
    assert outcome(decoder(), [data[i : i + 1] for i in range(len(data))]) == whole


def test_the_samples_mean_what_they_say() -> None:
    assert read(SAMPLES["pretty"]) == (Head(201, [("Content-Length", "3")]), b"a b", False)
    assert read(SAMPLES["braces in strings"])[1] == b'}{]["}\\'
    assert read(SAMPLES["escapes"])[1] == '\u20ac\U0001f600\n\\"'.encode()
    assert read(SAMPLES["nested unknowns"])[1] == b"b"
    assert read(SAMPLES["two objects"])[1:] == (b"1", True)
    assert read(SAMPLES["no utf-8"])[1] == "\ufffd\ufffd\ufffd".encode()
    assert read(SAMPLES["trailing blank in a string"])[1] == b"a }   "


@pytest.mark.parametrize("data", ["null", " null", "{}", '{"body":null,"content_type":null,"protocol":null}'])
def test_null_and_absent_members_are_an_empty_200(data: str) -> None:
    assert read(data) == (Head(200, [("Content-Length", "0")]), b"", False)


def test_keys_match_in_any_case_and_the_last_of_a_name_wins() -> None:
    protocol = '{"Status_Code":201,"STATUS_CODE":202,"HEADERS":{"a":["1"]}}'
    data = f'{{"BODY":"a","Body":"b","Content_Type":"t/x","PROTOCOL":{protocol}}}'
    assert read(data) == (Head(202, [("A", "1"), ("Content-Type", "t/x"), ("Content-Length", "1")]), b"b", False)
    assert read('{"body":"a","body":"b"}')[1] == b"b"


def test_the_content_type_wins_over_the_headers_unless_it_is_empty() -> None:
    headers = '"protocol":{"headers":{"content-type":["a/b"],"X":["1","2"]}}'
    assert head_of(f'{{"content_type":"c/d",{headers}}}').headers == [
        *(("X", "1"), ("X", "2")),
        *(("Content-Type", "c/d"), ("Content-Length", "0")),
    ]
    assert ("Content-Type", "a/b") in head_of(f'{{"content_type":"",{headers}}}').headers


def test_length_and_hop_by_hop_headers_are_not_the_functions_to_say() -> None:
    headers = {"content-length": ["99"], "Connection": ["close"], "transfer-encoding": ["chunked"], "X": ["y"]}
    data = json.dumps({"body": "\u20ac", "protocol": {"headers": headers}})
    assert read(data) == (Head(200, [("X", "y"), ("Content-Length", "3")]), "\u20ac".encode(), False)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *(("0", 200), ("null", 200), ("200", 200), ("418", 418), ("999", 999)),
        *((text, None) for text in ("2000", "199", "1000", "-1", "1", "200.0", "2e2", '"200"', "true", "[]")),
        *((text, None) for text in ("1" * 30, "1" * 5000, "1e999")),
    ],
)
def test_a_status_is_an_integer_from_200_to_999(status: str, expected: int | None) -> None:
    data = f'{{"protocol":{{"status_code":{status}}}}}'
    if expected:
        assert head_of(data).status == expected
    else:
        with pytest.raises(InvalidOutput):
            read(data)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_and_no_length(status: int) -> None:
    assert read(json.dumps({"body": "x", "protocol": {"status_code": status}})) == (Head(status, []), b"", False)


@pytest.mark.parametrize(
    "data",
    [
        *("[]", "1", '"text"', "true", "false", "nil", "Hello", "<html>", "\ufeff{}", "\x00", "{'a':1}"),
        *('{"body":1}', '{"body":{}}', '{"body":["x"]}', '{"content_type":1}', '{"protocol":[]}', '{"protocol":"x"}'),
        *('{"protocol":{"headers":[]}}', '{"protocol":{"headers":{"a":"b"}}}', '{"protocol":{"headers":{"a":[1]}}}'),
        *('{"protocol":{"headers":{"a":[null]}}}', '{"protocol":{"headers":{"a b":["x"]}}}'),
        *('{"protocol":{"headers":{"":["x"]}}}', '{"protocol":{"headers":{"a":["x\\r\\nSet-Cookie: y"]}}}'),
        *('{"content_type":"a\\nb"}', '{"protocol":{"headers":{"a\\r\\nb":["x"]}}}', '{"content_type":"a\\u0000"}'),
        *('{"body":"a",}', '{"body" "a"}', "{body:1}", '{"body":NaN}', '{"x":Infinity}', '{"x":-Infinity}', '{"x":]}'),
        *('{"body":"raw\nline"}', '{"body":"\\x"}', '{"body":"\\u12"}', '{"x":01}', '{"x":tru}', "{,}"),
    ],
)
def test_anything_else_is_invalid_output(data: str) -> None:
    with pytest.raises(InvalidOutput):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        *("{nonsense", "nul\n\n", '{"a" 1}', "]", "{1", '{"a":n0', '{"a":tru,', '{"a":1 2', '{"a":[1,]', '{"a":{},,'),
        *(
            '{"a":"line\n',
            '{"a":"\\x',
            '{"body":"line\n',
            '{"body":"\\x',
            '{"body":"\\u12x',
            '{"body":"a" "b"',
            '{"a":]',
        ),
        *('{"a":01,', '{"a":-x', '{"a":1.e', "{,", '{"a"}', "\xff"),
    ],
)
@pytest.mark.parametrize("before", ["", '{"body":"x","content_type":"a/b","x":[{"y":null}]'])
def test_what_can_never_become_an_object_is_refused_at_once(before: str, data: str) -> None:
    text = f"{before},{data[1:]}" if before and data.startswith("{") else data
    for pieces in ([text], list(text)):
        stream = decoder()
        with pytest.raises(InvalidOutput):
            feed_all(stream, [*pieces, "\n\n"])


def feed_all(stream: Decoder, pieces: list[str]) -> None:
    for piece in pieces:
        stream.feed(piece.encode())


def test_an_answer_without_its_body_has_a_limit() -> None:
    large = json.dumps({"content_type": "a/b", "x": "y" * 300_000, "body": "b"}).encode()
    with pytest.raises(InvalidOutput, match="answer without its body larger than 262144 bytes"):
        summary(decoder(), [large[i : i + 65536] for i in range(0, len(large), 65536)])
    many = json.dumps({"protocol": {"headers": {f"x{n}": ["y"] for n in range(1001)}}}).encode()
    with pytest.raises(InvalidOutput, match="more than 1000 header fields"):
        summary(decoder(), [many])


@pytest.mark.parametrize(
    "text",
    ["x" * 999, "\u00e9\U0001f600\n" * 333, "\x00\x1f\x7f", '\\"{}[]/', "\ud83d\ude00\ud83d\ude00", "\u2028<&>"],
    ids=["letters", "wide", "controls", "marks", "emoji", "markup"],
)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_body_that_comes_in_pieces_is_the_same(text: str, ascii_only: bool, size: int) -> None:
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    answer = {"Content_Type": "a/b", "BODY": "other", "x": {"body": 1}, "body": text, "y": [text]}
    data = json.dumps(answer, ensure_ascii=ascii_only).encode()
    head, body, surplus = summary(decoder(), [data[i : i + size] for i in range(0, len(data), size)])
    assert (body, surplus) == (text.encode(), False)
    assert head is not None
    assert head.headers == [("Content-Type", "a/b"), ("Content-Length", str(len(text.encode())))]


def test_the_details_of_an_error_help_to_find_it() -> None:
    with pytest.raises(InvalidOutput, match="it begins with 'Hello"):
        read("Hello, I am debugging")
    with pytest.raises(InvalidOutput, match="'}' at byte 12, where a name is expected"):
        read('{"body":"a",}')


def test_surrogates_without_their_other_half_are_replaced() -> None:
    data = '{"body":"a\\ud800b\\udc00","content_type":"x\\ud83d","protocol":{"headers":{"X":["\\udfff"]}},"\\ud800":1}'
    replaced = "\ufffd".encode().decode("latin-1")
    head, body, _ = read(data)
    assert body == "a\ufffdb\ufffd".encode()
    assert head.headers == [("X", replaced), ("Content-Type", f"x{replaced}"), ("Content-Length", "8")]


def test_header_texts_hold_one_character_per_byte_of_their_utf8() -> None:
    head = head_of('{"protocol":{"headers":{"X":["\u20ac\xe9"]}}}')
    assert head.headers[0] == ("X", "\u20ac\xe9".encode().decode("latin-1"))


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_a_nesting_bomb_is_invalid_output(opening: str) -> None:
    depth = 200_000
    closing = "}" if opening.startswith("{") else "]"
    data = ('{"x":' + opening * depth + "1" + closing * depth + "}").encode()
    for pieces in ([data], [data[i : i + 65536] for i in range(0, len(data), 65536)]):
        with pytest.raises(InvalidOutput, match="nested too deeply"):
            summary(decoder(), pieces)


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, True), (101, False)])
def test_the_limit_on_the_answer_is_exact(size: int, fits: bool) -> None:
    data = b'{"body":"' + b"x" * (size - 11) + b'"}'
    assert len(data) == size
    for pieces in ([b"  " + data + b"\n\n"], [data[:50], data[50:] + b"\n\n\n"], [data, b"\n"]):
        stream = JsonContract(max_answer_bytes=100).decoder(a_call())
        if fits:
            assert summary(stream, pieces)[2] is False
        else:
            with pytest.raises(InvalidOutput, match=r"^answer larger than 100 bytes$"):
                summary(stream, pieces)


def test_an_object_without_end_is_cut_off() -> None:
    stream = JsonContract(max_answer_bytes=1000).decoder(a_call())
    with pytest.raises(InvalidOutput, match="larger than 1000"):
        summary(stream, [b'{"body":"', *[b"x" * 50] * 100])


@pytest.mark.parametrize("size", [4096, 8192, 65536])
def test_an_object_that_exactly_fills_a_read_is_whole_and_its_newline_harmless(size: int) -> None:
    stream = decoder()
    data = b'{"body":"' + b"x" * (size - 11) + b'"}'
    assert stream.feed(data)[-1] == End(surplus=False)
    assert stream.feed(b"\n") == []


def test_bytes_beyond_the_end_are_surplus_whenever_they_come() -> None:
    stream = decoder()
    assert stream.feed(b'{"body":"1"}\n')[-1] == End(surplus=False)
    assert stream.feed(b" \r\n\t") == []
    assert stream.feed_eof() == []
    assert stream.feed(b'\n{"body":"2"}') == [End(surplus=True)]


@pytest.mark.parametrize("data", [b"", b"  \n", b"{", b'{"body":"x', b'{"body":"x"', b"nul"])
def test_an_output_that_ends_early_is_invalid(data: bytes) -> None:
    stream = decoder()
    assert stream.feed(data) == []
    assert stream.started == bool(data.strip())
    with pytest.raises(InvalidOutput):
        stream.feed_eof()


def test_a_client_that_asked_by_head_gets_the_length_only_but_a_log_gets_all() -> None:
    expected = Head(200, [("Content-Length", "2")])
    assert decoder(method="HEAD").feed(b'{"body":"hi"}') == [expected, End()]
    assert decoder(method="HEAD", call_type="async").feed(b'{"body":"hi"}') == [expected, Body(b"hi"), End()]


def test_a_long_answer_in_tiny_pieces_is_read_once() -> None:
    text = '\\"{[}]' * 20_000
    data = json.dumps({"body": text, "x": [text, {}]}).encode()
    assert summary(decoder(), [data[i : i + 3] for i in range(0, len(data), 3)])[1] == text.encode()


_KNOWN = {"body", "content_type", "protocol"}
members = st.dictionaries(
    st.text(max_size=6).filter(lambda name: name.lower() not in _KNOWN), st.integers(), max_size=3
)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True).map(lambda name: f"x{name}".title())


@given(
    body=st.text(max_size=60),
    status=st.integers(200, 999).filter(lambda status: status not in (204, 304)),
    headers=st.dictionaries(names, st.lists(st.text("abc \u20ac", min_size=1, max_size=5).map(str.strip), max_size=2)),
    unknown=members,
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
    splits=positions,
)
def test_a_generated_answer_comes_back(
    body: str,
    status: int,
    headers: dict[str, list[str]],
    unknown: dict[str, int],
    indent: int | None,
    ascii_only: bool,
    splits: list[int],
) -> None:
    answer = {"body": body, "protocol": {"status_code": status, "headers": headers}, **unknown}
    data = json.dumps(answer, indent=indent, ensure_ascii=ascii_only).encode() + b"\n\n"
    head, got, surplus = summary(decoder(), cut(data, splits))
    assert head is not None
    assert (head.status, got, surplus) == (status, body.encode(), False)
    wire = [value.encode().decode("latin-1") for values in headers.values() for value in values]
    assert [value for _, value in head.headers[:-1]] == wire
    assert head.headers[-1] == ("Content-Length", str(len(body.encode())))


fragments = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b" ", b"\n", b"null", b"1", b"\xff", b"'", b"\\u", b"d800"),
        *(b'"body":', b'"x"', b'"protocol":{', b'"status_code":', b"200", b'"headers":{', b'{"body":"a"}'),
    ]
)


@settings(max_examples=400)
@given(data=st.one_of(st.binary(max_size=60), st.lists(fragments, max_size=25).map(b"".join)), splits=positions)
@example(data=b'{"\\', splits=[])
def test_any_output_gives_events_or_invalid_output_wherever_it_is_split(data: bytes, splits: list[int]) -> None:
    assert outcome(decoder(), cut(data, splits)) == outcome(decoder(), [data])


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ('{"body":"x"}', '{"body":"x","content_type":""}'),
        ("null", '{"body":"","content_type":""}'),
        (
            '{"protocol":{"headers":{"b":["2"],"A":["1"]},"status_code":201}, "body":"<a>", "content_type":"t"}',
            '{"body":"\\u003ca\\u003e","content_type":"t","protocol":{"status_code":201,"headers":{"A":["1"],"b":["2"]}}}',
        ),
        ('{"protocol":{}}', '{"body":"","content_type":"","protocol":{}}'),
    ],
)
def test_the_log_form_is_the_object_on_one_line(answer: str, line: str) -> None:
    head, body, _ = read(answer)
    assert stdio_contract("json").log_form(head, body) == f"{line}\n".encode()
