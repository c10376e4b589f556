"""From bytes to requests: at whichever point the bytes are cut, they mean the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.contracts.stdio.fields import MAX_FIELDS
from hearth.server.http.parsing import MAX_HEAD_BYTES, MAX_TRAILER_BYTES, Reading, Refused, RequestHead, RequestParser

GET = b"GET /r/a/f?x=%20y HTTP/1.1\r\nHost: h:80\r\nX-One: 1\r\nx-one: \xc3\xa9\r\n\r\n"
POST = b"POST /v1/apps HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\nhello world"
CHUNKED = (
    b"PUT /r/a/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Trailer: y\r\nHost: other\r\n\r\n"
)
UPGRADE = b"POST /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"
RAW_TARGET = b"GET /zo\xc3\xab?q=\xff HTTP/1.1\r\nHost: h\r\nX-One: \xc3\xab\r\n\r\n"
RAW_BODY = b"PUT /zo\xc3\xab HTTP/1.1\r\nHost: h\r\nContent-Length: 23\r\n\r\n{\xff}\r\n\r\nGET /\xc3\xab HTTP/1.1"
RAW_CHUNKS = (
    b"PUT /zo\xc3\xab HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"20\r\n\r\nGET /\xc3\xab HTTP/1.1\r\nHost: h\r\n\r\n\xff\r\n0\r\n\r\n"
)
CONNECT = b"CONNECT /r/a/f HTTP/1.1\r\nHost: h\r\n\r\n"
BLANK = b"\r\n"
REQUESTS = {
    "get": GET,
    "post": POST,
    "chunked": CHUNKED,
    "upgrade": UPGRADE,
    "connect": CONNECT,
    "raw target": RAW_TARGET,
    "raw target and body": RAW_BODY,
    "raw target and chunks": RAW_CHUNKS,
    "after blank lines": BLANK + GET,
}
BROKEN = {
    "no request": b"garbage\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version": b"GET / HTTP/3.9\r\nHost: h\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a bad host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "line ends": b"GET / HTTP/1.1\nHost: h\n\n",
    "folding": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length and chunks": CHUNKED.replace(b"\r\n\r\n5", b"\r\nContent-Length: 5\r\n\r\n5"),
    "another coding": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "old chunks": b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "connect with a body": CONNECT.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"),
    "connect without a path": b"CONNECT host:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a chunk's size": CHUNKED.replace(b"5\r\nhello", b"z\r\nhello"),
}


class Received:
    """What a parser has told, in order; pieces of a body joined."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def request_arrives(self, head: RequestHead, size: int, body: bytes, *, is_whole: bool) -> None:
        self.events.append(head)
        if body:
            self.body_arrives(body)
        if is_whole:
            self.request_ends()

    def body_arrives(self, data: bytes) -> None:
        if isinstance(self.events[-1], bytes):
            data = self.events.pop() + data
        self.events.append(data)

    def request_ends(self) -> None:
        self.events.append("end")

    def shown(self) -> list[Any]:
        return [
            (one.method, one.path, one.target, one.version, tuple(one.headers), one.length, one.expects_continue)
            if isinstance(one, RequestHead)
            else one
            for one in self.events
        ]


def read(*pieces: bytes) -> tuple[list[Any], tuple[int, str] | None]:
    """What the pieces mean, and how they are refused."""
    received = Received()
    parser = RequestParser(received)
    refused = None
    for piece in pieces:
        try:
            parser.feed(piece)
        except Refused as exc:
            assert refused is None, "nothing is read after a refusal"
            assert parser.reading is Reading.REFUSED
            refused = (exc.status, exc.message)
    return received.shown(), refused


def cut(data: bytes, points: list[int]) -> list[bytes]:
    ends = sorted({min(point, len(data)) for point in points})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True) if start < end]


def test_a_request_is_told_with_all_that_it_says() -> None:
    [head, end], refused = read(GET)
    fields = ((b"host", b"h:80"), (b"x-one", b"1"), (b"x-one", b"\xc3\xa9"))
    assert head == ("GET", "/r/a/f", "/r/a/f?x=%20y", "1.1", fields, 0, False)
    assert (end, refused) == ("end", None)


def test_the_offer_of_an_upgrade_is_left_out() -> None:
    [(method, path, _, _, headers, length, _), *rest], refused = read(UPGRADE)
    assert (method, path, length, rest, refused) == ("POST", "/up", 5, [b"hello", "end"], None)
    assert b"upgrade" not in dict(headers)


def test_trailers_are_no_headers() -> None:
    [(*_, headers, length, _), *rest], refused = read(CHUNKED)
    assert (dict(headers), length) == ({b"host": b"h", b"transfer-encoding": b"chunked"}, None)
    assert (rest, refused) == ([b"hello world", "end"], None)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_means_the_same_wherever_it_is_cut(name: str) -> None:
    data = REQUESTS[name]
    whole = read(data)
    assert whole[0][-1] == "end"
    for point in range(1, len(data)):
        assert read(data[:point], data[point:]) == whole, point
    assert read(*[data[at : at + 1] for at in range(len(data))]) == whole


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_request_is_refused_wherever_it_is_cut(name: str) -> None:
    data = BROKEN[name]
    events, refused = read(data)
    assert refused == (400, "Invalid HTTP request received.")
    assert "end" not in events
    for point in range(1, len(data)):
        found, refused = read(data[:point], data[point:])
        assert (found, refused) == (events, (400, "Invalid HTTP request received.")), point


@given(st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=6), st.lists(st.integers(0, 1000), max_size=20))
def test_requests_in_a_row_mean_the_same_wherever_they_are_cut(names: list[str], points: list[int]) -> None:
    data = b"".join(REQUESTS[name] for name in names)
    events, refused = read(*cut(data, points))
    assert refused is None
    assert events == [event for name in names for event in read(REQUESTS[name])[0]]


@pytest.mark.parametrize("before", REQUESTS)
def test_the_target_of_a_later_request_may_hold_raw_bytes(before: str) -> None:
    """Wherever the packet ends: with the target begun, in the midst of a character, or with the whole request."""
    first, later = REQUESTS[before], RAW_TARGET
    expected = read(first)[0] + read(later)[0]
    for point in range(1, len(first + later)):
        data = first + later
        assert read(data[:point], data[point:]) == (expected, None), point
    assert expected[-2][1:3] == ("/zoë", "/zo%C3%AB?q=%FF")


PIECES = {
    **REQUESTS,
    "another body": POST.replace(b"hello world", b"\r\n\r\nGET / H"),
    "another length": POST.replace(b"11", b"5").replace(b"hello world", b"\r\n\r\nx"),
    "no continue": POST.replace(b"Expect: 100-continue\r\n", b""),
    "no continue, another body": POST.replace(b"Expect: 100-continue\r\n", b"").replace(b"hello world", b"\xff" * 11),
    "two": GET + GET,
    "a part": GET[:-1],
    "blank lines": BLANK * 2,
    "a closing one": GET.replace(b"X-One: 1", b"Connection: close"),
}


@given(st.lists(st.sampled_from(sorted(PIECES)), min_size=2, max_size=8))
def test_what_was_read_before_changes_nothing(names: list[str]) -> None:
    """A parser remembers heads that come in one piece; one that gets the same bytes one by one does not."""
    pieces = [PIECES[name] for name in names]
    data = b"".join(pieces)
    assert read(*pieces) == read(*[data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize("rest", [GET, GET[:-1], POST, BLANK, b"garbage\r\n\r\n"], ids=len)
@pytest.mark.parametrize("known", [GET, POST])
def test_a_head_that_is_remembered_ends_where_it_ends(known: bytes, rest: bytes) -> None:
    assert read(known, known + rest) == read(known, known, rest)
    assert read(known, known[:-1], known[-1:] + rest) == read(known, known, rest)


def test_another_head_of_the_same_size_is_another_head() -> None:
    other = GET.replace(b"/r/a/f", b"/r/b/g")
    assert read(GET, other, GET) == read(GET + other + GET)


def test_a_head_is_remembered_until_another_one_comes() -> None:
    received = Received()
    parser = RequestParser(received)
    for data in (GET, GET, POST, GET):
        parser.feed(data)
    first, second, _, last = [event for event in received.events if isinstance(event, RequestHead)]
    assert second is first
    assert last.headers == first.headers


@given(
    st.lists(st.sampled_from(sorted(set(REQUESTS) - {"connect"})), max_size=3),
    st.sampled_from(sorted(BROKEN)),
    st.lists(st.integers(0, 800), max_size=10),
)
def test_what_comes_before_garbage_is_told(names: list[str], broken: str, points: list[int]) -> None:
    before = b"".join(REQUESTS[name] for name in names)
    events, refused = read(*cut(before + BROKEN[broken], points))
    assert refused == (400, "Invalid HTTP request received.")
    told = [event for name in names for event in read(REQUESTS[name])[0]]
    assert events[: len(told)] == told
    assert "end" not in events[len(told) :]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes, points: list[int]) -> None:
    read(*cut(data, points))
    read(GET[:40], *cut(data, points))
    read(CHUNKED[:70], *cut(data, points))


def send_until_refused(parser: RequestParser, piece: bytes, most: int) -> tuple[int, Refused]:
    """Feed the same piece again and again; the bytes that were taken, and the refusal."""
    for sent in range(0, most, len(piece)):
        try:
            parser.feed(piece)
        except Refused as exc:
            return sent, exc
    raise AssertionError(f"{most} bytes are taken")


# -- limits ---------------------------------------------------------------------------------------------------------


def test_a_head_without_end_is_refused() -> None:
    line = b"X: " + b"y" * 10_000 + b"\r\n"
    parser = RequestParser(Received())
    parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\n")
    sent, refused = send_until_refused(parser, line, 2 * MAX_HEAD_BYTES)
    assert (refused.status, refused.message) == (431, "Request header fields too large")
    assert sent <= MAX_HEAD_BYTES


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize("begun", [b"0\r\nX: ", b"5;ext="], ids=["trailer", "extension"])
def test_trailers_and_extensions_without_end_are_refused(begun: bytes, size: int) -> None:
    parser = RequestParser(Received())
    parser.feed(CHUNKED.partition(b"5\r\n")[0] + begun)
    sent, refused = send_until_refused(parser, b"y" * size, 3 * MAX_TRAILER_BYTES)
    assert refused.status == 431
    assert MAX_TRAILER_BYTES - size <= sent <= MAX_TRAILER_BYTES + size


def test_a_body_of_any_size_is_read_in_pieces() -> None:
    received = Received()
    parser = RequestParser(received)
    parser.feed(CHUNKED.partition(b"5\r\n")[0])
    for _ in range(50):
        parser.feed(b"1000\r\n" + b"x" * 4096 + b"\r\n")
    parser.feed(b"0\r\n\r\n")
    assert received.events[1:] == [b"x" * 4096 * 50, "end"]


@pytest.mark.parametrize(("version", "header", "persistent"), [
    (b"1.1", b"X: y", True),
    (b"1.1", b"Connection: close", False),
    (b"1.1", b"Connection: keep-alive, close", False),
    (b"1.0", b"X: y", False),
    (b"1.0", b"Connection: keep-alive", False),
])  # fmt: skip
def test_a_client_says_whether_it_can_go_on(version: bytes, header: bytes, persistent: bool) -> None:
    received = Received()
    RequestParser(received).feed(b"GET / HTTP/%b\r\nHost: h\r\n%b\r\n\r\n" % (version, header))
    assert received.events[0].is_persistent is persistent


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_old_client_cannot_expect_an_interim_answer(version: bytes) -> None:
    received = Received()
    RequestParser(received).feed(POST.replace(b"HTTP/1.1", b"HTTP/" + version))
    assert received.events[0].expects_continue is (version == b"1.1")


# -- what a head says -------------------------------------------------------------------------------------------------


def heads_of(data: bytes) -> list[RequestHead]:
    received = Received()
    RequestParser(received).feed(data)
    return [event for event in received.events if isinstance(event, RequestHead)]


@pytest.mark.parametrize("length", [10, 1000], ids=["remembered", "not remembered"])
def test_a_path_is_decoded_and_kept_as_it_was_sent(length: int) -> None:
    name = b"x" * length
    [head] = heads_of(b"GET /a%%20b/%b?c=%%20d HTTP/1.1\r\nHost: h\r\n\r\n" % name)
    assert (head.path, head.raw_path) == (f"/a b/{name.decode()}", b"/a%20b/" + name)
    assert (head.query, head.target) == (b"c=%20d", f"/a%20b/{name.decode()}?c=%20d")


@pytest.mark.parametrize("scheme", [b"http", b"HTTPS"])
def test_the_host_of_an_absolute_target_counts(scheme: bytes) -> None:
    [head] = heads_of(b"GET %b://other:8080/a?b HTTP/1.1\r\nX: y\r\nHost: h\r\n\r\n" % scheme)
    assert (head.path, head.query) == ("/a", b"b")
    assert head.headers == [(b"x", b"y"), (b"host", b"other:8080")]


@pytest.mark.parametrize(
    "target", [b"ftp://h/a", b"http://h", b"http://user@h/a", b"http:///a", b"http://h?a", b"/a#b", b'http://h,h"/a']
)
def test_a_target_whose_meaning_is_not_certain_is_refused(target: bytes) -> None:
    assert read(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target) == ([], (400, "Invalid HTTP request received."))


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
def test_another_version_is_refused(version: bytes) -> None:
    assert read(b"GET / HTTP/%b\r\nHost: h\r\n\r\n" % version) == ([], (400, "Invalid HTTP request received."))


def test_an_old_client_names_no_host_or_one() -> None:
    for hosts, refused in ((0, False), (1, False), (2, True)):
        events, refusal = read(b"GET / HTTP/1.0\r\n%b\r\n" % (b"Host: h\r\n" * hosts))
        assert (bool(events), refusal is not None) == (not refused, refused), hosts


def test_only_one_expectation_is_known() -> None:
    for expected, known in ((b"100-Continue", True), (b"200-ok", False)):
        [head] = heads_of(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: %b\r\n\r\n" % expected)
        assert head.expects_continue is known


def test_header_fields_are_limited_in_number() -> None:
    fields = b"X: y\r\n" * (MAX_FIELDS - 1)
    events, refused = read(b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % fields)
    assert (len(events), refused) == (2, None)
    assert read(b"GET / HTTP/1.1\r\nHost: h\r\n%bX: y\r\n\r\n" % fields) == (
        [],
        (431, f"More than {MAX_FIELDS} request header fields"),
    )


def test_nothing_is_read_after_a_refusal() -> None:
    received = Received()
    parser = RequestParser(received)
    with pytest.raises(Refused):
        parser.feed(BROKEN["two hosts"])
    parser.feed(GET)
    assert (parser.reading, received.events) == (Reading.REFUSED, [])


def test_a_request_that_is_refused_although_its_head_is_remembered_is_the_last() -> None:
    class Full(Received):
        def request_arrives(self, head: RequestHead, size: int, body: bytes, *, is_whole: bool) -> None:
            if len(self.events) == 4:
                raise Refused(429, "too many")
            super().request_arrives(head, size, body, is_whole=is_whole)

    received = Full()
    parser = RequestParser(received)
    for _ in range(2):
        parser.feed(GET)
    with pytest.raises(Refused):
        parser.feed(GET)
    received.events.clear()
    parser.feed(GET)
    assert received.events == []


# -- trailers and extensions ------------------------------------------------------------------------------------------


def test_trailers_that_come_with_the_last_data_are_limited() -> None:
    begun = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    trailers = b"X: %b\r\n" % (b"y" * 1000) * 20
    _, refused = read(begun + trailers + b"\r\n")
    assert refused == (431, f"Request trailers or chunk extensions larger than {MAX_TRAILER_BYTES} bytes")


def test_extensions_of_all_chunks_together_are_not_limited() -> None:
    """Only what comes without data is: a client may name each of many chunks."""
    begun = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"1;name=value\r\n", b"x\r\n"] * (MAX_TRAILER_BYTES // 10)
    events, refused = read(begun, *chunks, b"0\r\n\r\n")
    assert refused is None
    assert events[1:] == [b"x" * (len(chunks) // 2), "end"]
