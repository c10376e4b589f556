"""A JSON answer that comes in pieces: where it ends, and where it can end no more."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hearth.contracts.base import Head
from hearth.contracts.stdio.codec import Event, InvalidOutput
from hearth.contracts.stdio.json_answer import JsonDecoder
from hearth.contracts.stdio.json_scan import MAX_OUTLINE_BYTES, AnswerScanner

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
objects = st.dictionaries(st.text(), values, max_size=5)
layouts = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])
#: What may complete a token that stopped anywhere; brackets are closed separately.
_TOKEN_ENDS = [
    *["", '"', '":0', ":0", "0", '"":0', ".0", '"":0', "null"],
    *["true"[n:] for n in range(1, 4)],
    *["false"[n:] for n in range(1, 5)],
    *["null"[n:] for n in range(1, 4)],
    *[f'{escape}"{colon}' for escape in ("n", "u0000", "0000", "000", "00", "0") for colon in ("", ":0")],
]


def scan(text: bytes, size: int) -> int:
    """Feed a text in pieces; the position of its end, 0 if it is incomplete."""
    scanner = AnswerScanner()
    for start in range(0, len(text), size):
        if (rest := scanner.feed(text[start : start + size])) is not None:
            return min(start + size, len(text)) - len(rest)
    return 0


def decoded(text: bytes, size: int) -> list[Event]:
    """What the decoder makes of a text in pieces."""
    decoder = JsonDecoder()
    return list(itertools.chain(*[decoder.feed(text[at : at + size]) for at in range(0, len(text), size)]))


def closers(text: str) -> str:
    """What closes the brackets that are open."""
    open_ones, in_string, escaped = [], False, False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "{[":
            open_ones.append("}" if character == "{" else "]")
        elif character in "}]" and open_ones:
            open_ones.pop()
    return "".join(reversed(open_ones))


def can_become_an_object(beginning: str) -> bool:
    """By trying: any of many endings makes it one."""
    end = closers(beginning)
    for token in _TOKEN_ENDS:
        try:
            if isinstance(json.loads(beginning + token + end, parse_constant=refuse), dict):
                return True
        except ValueError:
            continue
    return False


def refuse(name: str) -> Any:
    raise ValueError(name)


@settings(max_examples=50, deadline=None)
@given(value=objects, layout=layouts, size=st.integers(1, 40), tail=st.binary(max_size=5))
def test_an_object_ends_where_it_ends_however_it_is_cut(
    value: dict[str, Any], layout: dict[str, Any], size: int, tail: bytes
) -> None:
    text = json.dumps(value, **layout).encode("utf-8", "surrogatepass")
    assert scan(text + tail, size) == len(text)
    for cut in range(1, len(text), size):
        assert scan(text[:cut], size) == 0


@settings(max_examples=60, deadline=None)
@given(value=objects, layout=layouts, data=st.data())
@example(value={"a": 1}, layout={}, data=None)
def test_what_is_let_through_can_still_become_an_object_and_what_is_refused_cannot(
    value: dict[str, Any], layout: dict[str, Any], data: Any
) -> None:
    text = json.dumps(value, **{**layout, "ensure_ascii": True})
    if data is not None:
        place = data.draw(st.integers(1, len(text)))
        junk = data.draw(st.sampled_from([*'{}[],:"\\ 0-+.eEtfnulaN\n\x00', "nul", "1.", "\\u12", "01", "-"]))
        text = text[:place] + junk + text[place + data.draw(st.integers(0, 1)) :]
    scanner, taken = AnswerScanner(), ""
    for character in text:
        taken += character
        try:
            rest = scanner.feed(character.encode())
        except InvalidOutput:
            assert not can_become_an_object(taken)
            return
        if rest is not None:
            assert isinstance(json.loads(taken), dict)
            return
        assert can_become_an_object(taken)


@pytest.mark.parametrize(
    "text",
    [
        *[
            b"{nonsense",
            b"nul\n\n",
            b'{"a" 1}',
            b"]",
            b"{]",
            b'{"a":1]',
            b"{,",
            b'{"a":1,}',
            b'{"a":[1,]',
            b"[",
            b"nil",
            b'{"a":tru}',
            b'{"a":01',
            b'{"a":+',
            b'{"a":NaN',
            b'{"a":"\n',
            b'{"a":"\\x',
            b'{"a":"\\u12g',
            b'{"a":1.e',
        ],
    ],
)
def test_what_is_no_beginning_of_an_object_is_refused_at_once(text: bytes) -> None:
    for size in (1, 2, len(text)):
        with pytest.raises(InvalidOutput, match="not a JSON object"):
            decoded(text, size)


@pytest.mark.parametrize("size", [64 * 1024, 10_000_000])
def test_the_head_of_an_answer_has_a_limit(size: int) -> None:
    for count, is_refused in ((100, False), (300, True)):
        text = json.dumps({"protocol": {"headers": {"X-A": ["v" * (MAX_OUTLINE_BYTES // 256)] * count}}}).encode()
        if is_refused:
            with pytest.raises(InvalidOutput, match=f"larger than {MAX_OUTLINE_BYTES} bytes"):
                decoded(text, size)
        else:
            assert isinstance(decoded(text, size)[0], Head)
