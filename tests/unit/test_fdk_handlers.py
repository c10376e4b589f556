"""What a handler gets by its annotations, and what its result becomes."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import gc
import warnings
from typing import Any, Literal, TypedDict

import pytest

from hearth_fdk import Answer, BadInput, Context
from hearth_fdk.testing import call


@dataclasses.dataclass
class Item:
    name: str
    count: int = 1


@dataclasses.dataclass
class Order:
    items: list[Item]
    kind: Literal["new", "old"] = "new"
    note: str | None = None


class Person(TypedDict):
    name: str


def order(body: Order) -> Any:
    return {"first": body.items[0], "note": body.note}


def person(body: Person) -> str:
    return f"Hello {body['name']}"


def whole(body: bytes) -> bytes:
    return body[::-1]


def words(ctx: Context, body: str) -> str:
    return body.upper()


def anything(body) -> Any:
    return body


def test_each_type_of_input_and_output() -> None:
    done = call(order, {"items": [{"name": "a", "count": 2}], "note": None})
    assert done.json == {"first": {"name": "a", "count": 2}, "note": None}
    assert call(person, {"name": "Ada"}).text == "Hello Ada"
    assert call(whole, b"\xff\x00").body == b"\x00\xff"
    assert call(words, "é").text == "É"
    assert call(anything, [1]).json == [1]
    assert call(anything, b"").json == {}
    assert call(lambda: None).body == b""
    assert [
        call(handler, body).headers["Content-Type"] for handler, body in ((whole, b"x"), (words, "x"), (anything, 1))
    ] == [
        ["application/octet-stream"],
        ["text/plain; charset=utf-8"],
        ["application/json"],
    ]


@pytest.mark.parametrize(
    ("handler", "body", "message"),
    [
        (order, {}, "body.items: missing"),
        (order, b"", "body.items: missing"),
        (order, {"items": {}}, "body.items: expected a list"),
        (order, {"items": [{"name": 1}]}, "body.items[0].name: expected a text"),
        (order, {"items": [{"name": "a", "count": True}]}, "body.items[0].count: expected a whole number"),
        (order, {"items": [], "kind": "x"}, "body.kind: 'x' is none of 'new', 'old'"),
        (order, {"items": [], "note": 1}, "body.note: expected a text"),
        (person, [], "body: expected an object"),
        (words, b"\xff", "the body is not UTF-8"),
        (anything, b"{", "the body is not JSON"),
    ],
)
def test_a_body_of_another_type_is_answered_400(handler: Any, body: Any, message: str) -> None:
    done = call(handler, body)
    assert done.status == 400
    assert done.json["error"]["message"].startswith(message)


def test_the_context_knows_the_call() -> None:
    def handler(ctx: Context) -> Any:
        assert ctx.deadline == dt.datetime(2100, 1, 2, 3, 4, 5, 500000, tzinfo=dt.UTC)
        assert ctx.remaining_s() > 0
        return [ctx.call_id, ctx.headers["x-one"], ctx.method, ctx.request_url, ctx.config["A"], ctx.app_name, ctx.path]

    done = call(
        handler,
        headers={"X-One": "1"},
        method="GET",
        request_url="http://h/",
        call_id="id",
        deadline="2100-01-02T03:04:05.500Z",
        config={"A": "b", "FN_APP_NAME": "app", "FN_PATH": "/p"},
    )
    assert done.json == ["id", "1", "GET", "http://h/", "b", "app", "/p"]


def test_status_and_headers_are_set_by_context_or_answer() -> None:
    def by_context(ctx: Context, body: str) -> str:
        ctx.set_status(201)
        ctx.set_header("content-type", "text/x")
        ctx.add_header("X-A", "1")
        ctx.add_header("X-A", "2")
        return body

    def by_answer(ctx: Context) -> Answer:
        ctx.set_header("x-a", "lost")
        return Answer({"a": 1}, 404, {"X-A": "1"})

    done = call(by_context, "b")
    assert (done.status, done.headers) == (201, {"content-type": ["text/x"], "X-A": ["1", "2"]})
    done = call(by_answer)
    assert (done.status, done.json, done.headers["X-A"]) == (404, {"a": 1}, ["1"])


def test_what_a_handler_raises_is_raised_or_answered(capsys: pytest.CaptureFixture[str]) -> None:
    def handler(body: str) -> str:
        raise ValueError("secret")

    with pytest.raises(ValueError, match="secret"):
        call(handler)
    done = call(handler, raise_errors=False)
    assert done.status == 500
    assert "secret" not in done.text
    log = capsys.readouterr().err
    assert "ValueError: secret" in log
    assert "hearth_fdk" not in log


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("x", status=101), "101 is no status"),
        (Answer("x", headers={"X-A": "a\r\nX-B: b"}), "X-A: 'a\\r\\nX-B: b' is no header"),
        (Answer("x", headers={"X-A": [5]}), "X-A: 5 is no header"),  # type: ignore[list-item]  # as an author might
        (Answer("x", headers={"X A": "a"}), "X A: 'a' is no header"),
        ({"ratio": float("nan")}, "JSON compliant"),
    ],
)
def test_what_no_client_can_be_told_is_the_handlers_fault(
    answer: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(lambda: answer, raise_errors=False).status == 500
    assert told in capsys.readouterr().err


def test_a_handler_may_refuse_its_input() -> None:
    def handler(body: str) -> str:
        raise BadInput("too short")

    assert (call(handler).status, call(handler).json["error"]["message"]) == (400, "too short")


def test_async_handlers_are_awaited() -> None:
    async def handler(body: str) -> str:
        await asyncio.sleep(0)
        return body + "!"

    assert call(handler, "a").text == "a!"


def test_a_handler_that_wants_too_much_is_told() -> None:
    def handler(ctx: Context, body: str, more: int) -> None: ...

    with pytest.raises(TypeError, match="who should give 'more'"):
        call(handler)


def test_the_test_client_leaves_no_event_loop_behind() -> None:
    async def greet(name: str) -> str:
        return name

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert call(greet, "x").text == "x"
        gc.collect()
    assert [str(one.message) for one in told] == []
