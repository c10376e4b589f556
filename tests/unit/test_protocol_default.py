"""The default format, and formats by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol_events import a_call, stdio_contract, summary

from hearth.contracts.base import Head, InvalidProtocol
from hearth.contracts.stdio.codec import Body, End


@pytest.mark.parametrize(
    ("name", "expected", "hot"),
    [("", "default", False), ("default", "default", False), ("http", "http", True), ("json", "json", True)],
)
def test_formats_are_found_by_name(name: str, expected: str, hot: bool) -> None:
    contract = stdio_contract(name)
    assert (contract.name, contract.hot) == (expected, hot)


@pytest.mark.parametrize("name", ["HTTP", "cloudevent", " ", "json "])
def test_an_unknown_format_is_an_invalid_protocol(name: str) -> None:
    with pytest.raises(InvalidProtocol, match=r"^Invalid Protocol$"):
        stdio_contract(name)


def test_the_input_is_the_body_and_nothing_else() -> None:
    encoder = stdio_contract("default").encoder(a_call(content_length=3))
    assert encoder.body(b"ab") + encoder.body(b"c") + encoder.end() == b"abc"
    assert not encoder.lossy


@given(st.lists(st.binary(min_size=1), max_size=5))
def test_all_output_is_the_body(pieces: list[bytes]) -> None:
    decoder = stdio_contract("default").decoder(a_call())
    assert not decoder.started
    head, body, surplus = summary(decoder, pieces)
    assert body == b"".join(pieces)
    assert decoder.started == bool(pieces)
    assert (head is None) == (not pieces)
    assert surplus is None
    last = decoder.feed_eof()
    assert last == ([End()] if pieces else [Head(200, ()), End()])
    assert decoder.feed_eof() == []


def test_the_head_comes_with_the_first_byte() -> None:
    assert stdio_contract("default").decoder(a_call()).feed(b" ") == [Head(200, ()), Body(b" ")]


def test_a_client_that_asked_by_head_gets_no_body_but_a_log_does() -> None:
    contract = stdio_contract("default")
    decoder = contract.decoder(a_call(method="HEAD"))
    assert decoder.feed(b"x") + decoder.feed_eof() == [Head(200, ()), End()]
    decoder = contract.decoder(a_call(method="HEAD", call_type="async"))
    assert decoder.feed(b"x") == [Head(200, ()), Body(b"x")]


def test_the_log_form_is_the_raw_output() -> None:
    assert stdio_contract("default").log_form(Head(200, ()), b"\x00raw\n") == b"\x00raw\n"
