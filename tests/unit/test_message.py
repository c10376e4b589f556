"""Calls as messages: what was written comes back, also from Fn, and what is no call says so."""

from __future__ import annotations

import datetime as dt
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models.call import Call
from hearth.models.message import INSIDE_BYTES, InvalidMessage, decode_call, encode_call, encode_plain, identify_call
from hearth.models.retry import validate_retry

#: As Fn 0.3 writes it: no payload_encoding, null priority, times with an offset, fields that Hearth does not know.
FN_MESSAGE = """
{"id":"01C59M8V1MG3G00GZJ00000001","status":"queued","app_name":"myapp","path":"/hello","image":"fnproject/hello",
 "delay":0,"type":"async","format":"json","payload":"{\\"a\\":\\"ü\\"}","url":"http://localhost:8080/r/myapp/hello?x=1",
 "method":"POST","priority":null,"timeout":30,"idle_timeout":30,"memory":128,"cpus":"200m",
 "config":{"FN_PATH":"/hello"},"headers":{"Content-Type":["application/json"],"X-Id":["1","2"]},
 "completed_at":"0001-01-01T00:00:00.000Z","created_at":"2018-01-31T17:52:39.786+01:00",
 "started_at":"0001-01-01T00:00:00.000Z","retries":null,"created_by":{"x":1}}
"""

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
instants = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=dt.UTC)
)
calls = st.builds(
    Call,
    id=names,
    app_name=names,
    path=names,
    payload=st.binary(),
    url=texts,
    method=texts,
    priority=st.integers(0, 2),
    delay=st.integers(0, 3600),
    memory=st.integers(0, 1 << 40),
    cpu_milli=st.integers(0, 1_024_000),
    config=st.dictionaries(texts, texts),
    headers=st.dictionaries(texts, st.lists(texts)),
    created_at=instants,
    error=texts,
    app_id=texts,
    response_status=st.integers(0, 599),
    trigger_id=texts,
    syslog_url=texts,
)


@given(calls)
def test_a_call_survives_as_a_message(call: Call) -> None:
    assert decode_call(encode_call(call)) == call


@pytest.mark.parametrize("payload", [b"x", b"\xff", b"\n", b"\x01{", b"\0"])
@pytest.mark.parametrize("size", [INSIDE_BYTES, INSIDE_BYTES + 1])
def test_a_large_payload_stands_behind_the_message_as_it_is(payload: bytes, size: int) -> None:
    call = Call(id="x", app_name="a", path="/p", payload=payload * (size // len(payload) + len(payload) - 1))
    message = encode_call(call)
    assert decode_call(message) == decode_call(encode_plain(call)) == call
    assert message.startswith(b"{") == (len(call.payload) <= INSIDE_BYTES)
    assert (len(message) < len(call.payload) + 1000) or len(call.payload) <= INSIDE_BYTES


def test_a_message_whose_payload_is_cut_names_its_call() -> None:
    message = encode_call(Call(id="x", app_name="a", path="/p", payload=bytes(INSIDE_BYTES + 1)))
    with pytest.raises(InvalidMessage):
        decode_call(message[:-1])
    found = identify_call(message[:-1])
    assert found is not None
    assert found.id == "x"


def test_a_message_that_fn_wrote_is_read() -> None:
    call = decode_call(FN_MESSAGE.encode())
    assert (call.id, call.app_name, call.path) == ("01C59M8V1MG3G00GZJ00000001", "myapp", "/hello")
    assert call.payload == '{"a":"ü"}'.encode()
    assert (call.priority, call.cpu_milli, call.memory) == (0, 200, 128)
    assert call.headers["X-Id"] == ["1", "2"]
    assert call.created_at == dt.datetime(2018, 1, 31, 16, 52, 39, 786_000, tzinfo=dt.UTC)


@pytest.mark.parametrize(("written", "read"), [(None, 0), (-1, 0), (0, 0), (2, 2), (9, 2)])
def test_priorities_are_kept_within_bounds(written: int | None, read: int) -> None:
    message = {"id": "x", "app_name": "a", "path": "/p", "priority": written}
    assert decode_call(json.dumps(message).encode()).priority == read


WORTHLESS = [
    b"",
    b"\xff\x00",
    b"null",
    b"[]",
    b'"text"',
    b'{"id":"x"}',
    b'{"id":"","app_name":"a","path":"/p"}',
    b'{"id":7,"app_name":"a","path":"/p"}',
    b'{"id":"x","app_id":"01C59","path":"/p"}',
    b'{"id":"x","app_name":"a","path":"/p","created_at":"yesterday"}',
    b"\x01",
    b"\x01\n",
    b'\x01{"id":\n"x"}',
]
FOREIGN = [
    b'{"id":"x","app_name":"a","path":"/p","payload":"eA==","payload_encoding":"rot13"}',
    b'{"id":"x","app_name":"a","path":"/p","payload":"?","payload_encoding":"base64"}',
    b'{"id":"x","app_name":"a","path":"/p","payload":{"blob":7}}',
    b'{"id":"x","app_name":"a","path":"/p","env_vars":{},"timeout":"30s"}',
    b'{"id":"x","app_name":"a","path":"/p","cpus":"many"}',
    b'{"id":"x","app_name":"a","path":"/p","payload_bytes":5}',
    b'{"id":"x","app_name":"a","path":"/p","payload_bytes":-5}',
    b'\x01{"id":"x","app_name":"a","path":"/p","payload_bytes":5}\nfour',
    b'\x01{"id":"x","app_name":"a","path":"/p","payload_bytes":5}',
]


@pytest.mark.parametrize("data", WORTHLESS)
def test_what_names_no_call_is_worthless(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_call(data)
    assert identify_call(data) is None


@pytest.mark.parametrize("data", FOREIGN)
def test_what_cannot_be_run_still_names_its_call(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_call(data)
    call = identify_call(data)
    assert call is not None
    assert (call.id, call.app_name, call.path) == ("x", "a", "/p")


@given(st.binary())
def test_any_bytes_are_a_call_or_an_invalid_message(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_call(data)
    assert identify_call(data) is None


POLICIES = [
    {},
    {"attempts": 5},
    {"attempts": 2, "backoff_s": 0, "factor": 1.5, "max_s": 1, "jitter": "none", "on": ["error"]},
]


@pytest.mark.parametrize("given", POLICIES)
def test_a_message_has_what_a_policy_of_retries_sets(given: dict[str, object]) -> None:
    policy = validate_retry(given)
    data = encode_call(Call(id="x", app_name="a", path="/p", retry=policy))
    assert msgspec.json.decode(data)["retry"] == given
    assert decode_call(data).retry == policy
    assert decode_call(encode_call(Call(id="x", app_name="a", path="/p"))).retry is None


@pytest.mark.parametrize("text", ["true", '{"attempts":"x"}', "[1]"])
def test_a_policy_that_is_none_makes_its_message_unreadable(text: str) -> None:
    with pytest.raises(InvalidMessage):
        decode_call(b'{"id":"x","app_name":"a","path":"/p","retry":%b}' % text.encode())
