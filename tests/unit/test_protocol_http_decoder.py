"""The http format's output: one response, exact to the byte, from a stream that goes on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.protocol_events import a_call, cut, outcome, positions, stdio_contract, summary, two_pieces

from hearth.contracts.base import Head, canonical
from hearth.contracts.stdio.codec import Body, Decoder, End, InvalidOutput
from hearth.contracts.stdio.http import HttpContract, HttpDecoder

OK = b"HTTP/1.1 200 OK\r\n"


def decoder(method: str = "POST") -> Decoder:
    return stdio_contract("http").decoder(a_call(method=method))


def read(data: bytes, method: str = "POST") -> Any:
    return summary(decoder(method), [data])


def test_the_documented_example_is_read() -> None:
    data = b"HTTP/1.1 201 Created\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world"
    assert decoder().feed(data) == [
        Head(201, [("Content-Length", "11"), ("X-A", "b")]),
        Body(b"hello world"),
        End(surplus=False),
    ]


SAMPLES = {
    "sized": OK + b"Content-Length: 5\r\nX-A: b\r\n\r\nhello",
    "empty": OK + b"Content-Length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200\nContent-Length: 2\n\nhi",
    "mixed line ends": b"HTTP/1.0 200 \r\nContent-Length: 2\n\r\nhi",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n",
    "chunked, bare line feeds": OK + b"Transfer-Encoding: Chunked\n\n5\nhello\n0\n\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
    + OK
    + b"Content-Length: 1\r\n\r\nx",
    "no content": b"\n\r\n HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "surplus": OK + b"Content-Length: 2\r\n\r\nhi" + OK,
    "whitespace after": OK + b"Content-Length: 2\r\n\r\nhi\r\n\n",
    "folded": OK + b"X-A: b\r\n  c\r\n\td\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"Hello from the function\n",
    "garbage header": OK + b"what is this\r\n\r\n",
    "no length": OK + b"X: y\r\n\r\nbody",
    "bad chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)
def test_no_split_changes_the_events(data: bytes) -> None:
    whole = outcome(decoder(), [data])
    for pieces in two_pieces(data):
        assert outcome(decoder(), pieces) == whole
    assert outcome(decoder(), [data[i : i + 1] for i in range(len(data))]) == whole


def test_the_lenient_forms_give_what_the_strict_ones_do() -> None:
    assert read(SAMPLES["bare line feeds"]) == (Head(200, [("Content-Length", "2")]), b"hi", False)
    assert read(SAMPLES["mixed line ends"]) == (Head(200, [("Content-Length", "2")]), b"hi", False)
    assert read(SAMPLES["chunked"]) == (Head(200, []), b"hello world", False)
    assert read(SAMPLES["chunked, bare line feeds"]) == (Head(200, []), b"hello", False)
    assert read(SAMPLES["folded"])[0] == Head(200, [("X-A", "b c d"), ("Content-Length", "0")])
    assert read(OK + b"X-A: b \t\r\n \r\n c\r\nContent-Length: 0\r\n\r\n")[0].headers[0] == ("X-A", "b c")


def test_blanks_without_end_beside_a_folded_line_are_read_in_one_walk() -> None:
    value = "b" + " " * 200_000 + "c"
    head = read(OK + b"X-A: b\n c\nX-B: " + value.encode() + b"\nContent-Length: 0\n\n")[0]
    assert head.headers[:2] == [("X-A", "b c"), ("X-B", value)]


def test_interim_responses_are_skipped() -> None:
    assert read(SAMPLES["interim"]) == (Head(200, [("Content-Length", "1")]), b"x", False)


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_a_response_to_head_has_no_body(framing: bytes) -> None:
    head, body, surplus = read(OK + framing + b"\r\n", "HEAD")
    assert head is not None
    assert dict(head.headers).get("Content-Length") == ("5" if framing.startswith(b"Content") else None)
    assert (body, surplus) == (b"", False)


def test_a_body_sent_in_answer_to_head_is_surplus() -> None:
    assert read(OK + b"Content-Length: 5\r\n\r\nhello", "HEAD")[1:] == (b"", True)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_and_no_length(status: int) -> None:
    data = f"HTTP/1.1 {status} X\r\nContent-Length: 5\r\nEtag: e\r\n\r\n".encode()
    assert read(data) == (Head(status, [("Etag", "e")]), b"", False)


def test_a_status_with_an_empty_body_keeps_its_headers() -> None:
    assert read(b"HTTP/1.1 599 \r\nX-A: b\r\nContent-Length: 0\r\n\r\n") == (
        Head(599, [("X-A", "b"), ("Content-Length", "0")]),
        b"",
        False,
    )


def test_a_response_without_length_is_invalid_at_once() -> None:
    with pytest.raises(InvalidOutput, match=r"^missing content length$"):
        decoder().feed(OK + b"Content-Type: text/plain\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length: 0x5",
        "Content-Length: 1_0",
        "Content-Length:",
        "Content-Length: \xb2",
        "Content-Length: 9999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity\r\nContent-Length: 1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_length_that_is_not_one_number_is_invalid(line: str) -> None:
    with pytest.raises(InvalidOutput):
        decoder().feed(OK + line.encode("latin-1") + b"\r\n\r\n")


def test_equal_lengths_count_once() -> None:
    for lines in (b"Content-Length: 2\r\nContent-Length: 2", b"Content-Length: 2, 2", b"Content-Length: 02"):
        assert read(OK + lines + b"\r\n\r\nhi") == (Head(200, [("Content-Length", "2")]), b"hi", False)


def test_chunks_win_over_a_length() -> None:
    data = OK + b"Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    assert read(data) == (Head(200, []), b"hi", False)


@pytest.mark.parametrize(
    "data",
    [
        b"Hello",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.x 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1200 OK\r\n\r\n",
        b"\x00" + OK,
        OK + b": empty name\r\n\r\n",
        OK + b"two words: x\r\n\r\n",
        OK + b"X: a\x00b\r\n\r\n",
        OK + b"X: a\rb\r\n\r\n",
        OK + b"X: a\x7fb\r\n\r\n",
    ],
)
def test_garbage_is_invalid_output(data: bytes) -> None:
    with pytest.raises(InvalidOutput):
        decoder().feed(data)


def test_garbage_is_known_at_its_first_wrong_byte() -> None:
    stream = decoder()
    stream.feed(b"HTTP/")
    with pytest.raises(InvalidOutput, match="HTTP/2"):
        stream.feed(b"2")


def test_hop_by_hop_headers_and_those_that_connection_names_stay_behind() -> None:
    data = (
        OK + b"Connection: close, x-hop\r\nX-Hop: 1\r\nkeep-alive: 5\r\nTe: x\r\nX-END: 1\r\nContent-Length: 0\r\n\r\n"
    )
    assert read(data)[0] == Head(200, [("X-End", "1"), ("Content-Length", "0")])


def test_repeated_headers_keep_their_order() -> None:
    data = OK + b"Set-Cookie: b\r\nset-cookie: a\r\nX-Empty:\r\nX-Spaced : x \r\nContent-Length: 0\r\n\r\n"
    head = read(data)[0]
    assert head.headers[:4] == [("Set-Cookie", "b"), ("Set-Cookie", "a"), ("X-Empty", ""), ("X-Spaced", "x")]


def test_bytes_beyond_the_end_are_surplus_whenever_they_come() -> None:
    stream = decoder()
    assert stream.feed(SAMPLES["sized"])[-1] == End(surplus=False)
    assert stream.feed(b"\r\n \t") == []
    assert stream.feed(b"") == []
    assert stream.feed_eof() == []
    assert stream.feed(b"\nx") == [End(surplus=True)]
    assert read(SAMPLES["surplus"])[2] is True
    assert read(SAMPLES["whitespace after"])[2] is False


@pytest.mark.parametrize("size", [0, 1, len(OK), len(SAMPLES["sized"]) - 1])
def test_an_output_that_ends_early_is_invalid(size: int) -> None:
    stream = decoder()
    stream.feed(SAMPLES["sized"][:size])
    assert stream.started == (size > 0)
    with pytest.raises(InvalidOutput):
        stream.feed_eof()


def test_whitespace_alone_is_no_start() -> None:
    stream = decoder()
    assert stream.feed(b"\r\n \t\n") == []
    assert not stream.started


def test_a_body_is_passed_on_as_it_comes() -> None:
    stream = decoder()
    stream.feed(OK + b"Content-Length: 1000000000000\r\n\r\n")
    assert stream.feed(b"x" * 1000) == [Body(b"x" * 1000)]
    stream = decoder()
    stream.feed(OK + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n")
    assert stream.feed(b"y" * 1000) == [Body(b"y" * 1000)]


def head_of_size(size: int) -> bytes:
    start, end = OK + b"Content-Length: 0\r\nX: ", b"\r\n\r\n"
    return start + b"y" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
def test_the_limit_on_the_head_is_exact(size: int, fits: bool) -> None:
    for pieces in ([head_of_size(size)], [head_of_size(size)[:500], head_of_size(size)[500:]]):
        stream = HttpContract(max_head_bytes=1000).decoder(a_call())
        if fits:
            assert summary(stream, pieces)[2] is False
        else:
            with pytest.raises(InvalidOutput, match=r"^response head larger than 1000 bytes$"):
                summary(stream, pieces)


def test_a_head_without_end_is_cut_off() -> None:
    with pytest.raises(InvalidOutput, match="larger than 1000"):
        summary(HttpDecoder(max_head_bytes=1000), [OK, *[b"X: y\r\n"] * 200])


def test_interim_responses_without_end_are_cut_off() -> None:
    with pytest.raises(InvalidOutput, match="larger than 1000"):
        summary(HttpDecoder(max_head_bytes=1000), [b"HTTP/1.1 100 Continue\r\n\r\n"] * 100)


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\r\nhelloX",
        b"5\r\nhello\r\n-1\r\n",
        b"0x5\r\n",
        b"\r\n",
        b" 5\r\n",
        b"1_0\r\n",
        b"10000000000000000\r\n",
        b"5;" + b"x" * 5000 + b"\r\n",
        b"0\r\n" + b"X: y\r\n" * 30000,
    ],
)
def test_broken_chunks_are_invalid(chunks: bytes) -> None:
    stream = decoder()
    stream.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(InvalidOutput):
        stream.feed(chunks + b"\r\n")


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True).map(lambda name: f"x{name}")
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=12)


@given(
    status=st.integers(200, 999).filter(lambda status: status not in (204, 304)),
    fields=st.lists(st.tuples(names, values), max_size=5),
    pieces=st.lists(st.binary(min_size=1, max_size=30), max_size=5),
    chunked=st.booleans(),
    line_end=st.sampled_from([b"\r\n", b"\n"]),
    splits=positions,
)
def test_a_generated_response_comes_back(
    status: int,
    fields: list[tuple[str, str]],
    pieces: list[bytes],
    chunked: bool,
    line_end: bytes,
    splits: list[int],
) -> None:
    body = b"".join(pieces)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status} Some Reason", *[f"{name}: {value}" for name, value in fields], framing, "", ""]
    data = line_end.join([line.encode("latin-1") for line in lines])
    if chunked:
        data += b"".join([b"%x%b%b%b" % (len(piece), line_end, piece, line_end) for piece in pieces])
        data += b"0" + line_end + line_end
    else:
        data += body
    expected = [(canonical(name), value.strip(" \t")) for name, value in fields]
    if not chunked:
        expected.append(("Content-Length", str(len(body))))
    assert summary(decoder(), cut(data, splits)) == (Head(status, expected), body, False)


fragments = st.sampled_from(
    [
        *(b"HTTP/1.1 ", b"200", b"100", b"204", b" OK", b"\r\n", b"\n", b"\r", b"\r\n\r\n"),
        *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: x"),
        *(b"0", b"1", b"5;", b"\x00", b" ", b":", b"x", b"\xff"),
    ]
)


@settings(max_examples=400)
@given(data=st.one_of(st.binary(max_size=60), st.lists(fragments, max_size=25).map(b"".join)), splits=positions)
@example(data=OK + b"\n \n\n", splits=[])
def test_any_output_gives_events_or_invalid_output_wherever_it_is_split(data: bytes, splits: list[int]) -> None:
    assert outcome(decoder(), cut(data, splits)) == outcome(decoder(), [data])


def test_the_log_form_is_the_whole_response() -> None:
    contract = stdio_contract("http")
    head = Head(201, [("X-A", "b"), ("Content-Length", "2")])
    assert contract.log_form(head, b"hi") == b"HTTP/1.1 201 Created\r\nX-A: b\r\nContent-Length: 2\r\n\r\nhi"
    assert contract.log_form(Head(799, []), b"hi") == b"HTTP/1.1 799\r\nContent-Length: 2\r\n\r\nhi"
    assert contract.log_form(Head(204, [("X", "y")]), b"") == b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"
