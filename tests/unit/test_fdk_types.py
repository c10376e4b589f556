"""Each annotation that a handler may have: what it gets, what a client is told, what its author is told."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import io
import pathlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, Union

import pydantic
import pytest

from hearth_fdk import BadInput
from hearth_fdk.invoking import decode
from hearth_fdk.shaping import Unsupported, shape_of
from hearth_fdk.testing import call

UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Row(TypedDict):
    id: int
    note: NotRequired[str]


@dataclasses.dataclass
class Order:
    at: dt.datetime
    on: dt.date
    id: uuid.UUID
    price: decimal.Decimal
    colour: Colour
    file: pathlib.Path
    kind: Literal["new", "old"] = "new"
    note: Optional[str] = None  # noqa: UP045 - as many write it
    amount: Union[int, str] = 1  # noqa: UP007
    parts: list[Order] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError("price must not be negative")


class User(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(gt=0)
    since: dt.date | None = None


@pydantic.dataclasses.dataclass
class Place:
    x: int


ORDER: dict[str, Any] = {
    "at": "2026-01-31T12:00:00Z",
    "on": "2026-01-31",
    "id": "12345678-1234-5678-1234-567812345678",
    "price": "1.10",
    "colour": "red",
    "file": "a/b",
}


def test_a_dataclass_gets_its_fields_in_their_types() -> None:
    made = shape_of(Order)({**ORDER, "amount": "x", "parts": [{**ORDER, "price": 2.5}]}, "body")
    assert made == Order(
        at=dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
        on=dt.date(2026, 1, 31),
        id=uuid.UUID(ORDER["id"]),
        price=decimal.Decimal("1.10"),
        colour=Colour.RED,
        file=pathlib.Path("a/b"),
        amount="x",
        parts=[dataclasses.replace(made.parts[0], price=decimal.Decimal("2.5"))],
    )
    assert type(made.parts[0]) is Order


@pytest.mark.parametrize(
    ("wanted", "value", "made"),
    [
        (int | float, 5, 5),
        (float, 5, 5.0),
        (dt.datetime | str, "no date", "no date"),
        (Level, 1, Level.LOW),
        (Point, {"x": 1}, Point(1.0)),
        (Row, {"id": 1}, {"id": 1}),
        (dict[int, Colour], {"7": "blue"}, {7: Colour.BLUE}),
        (dict[uuid.UUID, int], {ORDER["id"]: 1}, {uuid.UUID(ORDER["id"]): 1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 1], {1}),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (UserId, 3, 3),
        (Annotated[int, ["anything"]], 3, 3),
        (dt.timedelta, 1.5, dt.timedelta(seconds=1.5)),
        (dt.time, "12:30:00", dt.time(12, 30)),
        (None, None, None),
        (list, [1, "a"], [1, "a"]),
        (object, 1, 1),
        (list[User], [{"name": "a", "age": 1}], [User(name="a", age=1)]),
        (User, {"name": "a", "age": 1, "since": "2026-01-31"}, User(name="a", age=1, since=dt.date(2026, 1, 31))),
        (Place, {"x": 1}, Place(1)),
    ],
)
def test_a_value_becomes_what_is_asked_for(wanted: Any, value: Any, made: Any) -> None:
    found = shape_of(wanted)(value, "body")
    assert (found, type(found)) == (made, type(made))


@pytest.mark.parametrize(
    ("wanted", "value", "told"),
    [
        (Order, {**ORDER, "at": "today"}, "body.at: expected a date and time, as 2026-01-31T12:00:00Z"),
        (Order, {**ORDER, "at": 5}, "body.at: expected a date and time"),
        (Order, {**ORDER, "on": "2026-02-31"}, "body.on: expected a date, as 2026-01-31"),
        (Order, {**ORDER, "id": "x"}, "body.id: expected a UUID"),
        (Order, {**ORDER, "id": 5}, "body.id: expected a UUID"),
        (Order, {**ORDER, "price": "NaN"}, "body.price: expected a decimal number"),
        (Order, {**ORDER, "price": True}, "body.price: expected a decimal number"),
        (Order, {**ORDER, "colour": "green"}, "body.colour: 'green' is none of 'red', 'blue'"),
        (Order, {**ORDER, "file": 5}, "body.file: expected a path"),
        (Order, {**ORDER, "note": 5}, "body.note: expected a text"),
        (Order, {**ORDER, "amount": 1.5}, "body.amount: expected a whole number or a text"),
        (Order, {**ORDER, "price": "-1"}, "body: price must not be negative"),
        (Order, {**ORDER, "parts": [{**ORDER, "price": "x"}]}, "body.parts[0].price: expected a decimal number"),
        (Order | list[int], {**ORDER, "on": 1}, "body.on: expected a date"),
        (Level, True, "body: True is none of 1"),
        (Literal[1], True, "body: True is none of 1"),
        (tuple[int, str], [1], "body: expected a list of 2"),
        (dict[int, int], {"a": 1}, "body.a: the name is not a whole number"),
        (float, 10**400, "body: the number is too large"),
        (User, {"name": "a"}, "body.age: Field required"),
        (User, {"name": "a", "age": 0}, "body.age: Input should be greater than 0"),
        (list[User], [{"name": "a", "age": "x"}], "body[0].age: Input should be a valid integer"),
        (User, [], "body: Input should be a valid dictionary"),
    ],
)
def test_what_does_not_fit_names_the_field(wanted: Any, value: Any, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        shape_of(wanted)(value, "body")
    assert str(refused.value).startswith(told)


class Plain:
    pass


@dataclasses.dataclass
class Holder:
    inner: list[Plain]


@pytest.mark.parametrize(
    "wanted", [Plain, list[Plain], Holder, re.Pattern, Callable[[], int], dict[str, bytes], complex]
)
def test_what_no_json_can_become_is_its_authors_fault_at_the_start(wanted: Any) -> None:
    with pytest.raises(Unsupported):
        shape_of(wanted)

    def handler(body: Any) -> None: ...

    handler.__annotations__["body"] = wanted
    with pytest.raises(TypeError, match=r"handler\(body\): "):
        call(handler)


def test_an_annotation_that_cannot_be_evaluated_is_its_authors_fault() -> None:
    def handler(body: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"an annotation cannot be evaluated: name 'Nowhere' is not defined"):
        call(handler)


def test_a_body_as_fns_handlers_take_it() -> None:
    def handler(ctx, data: io.BytesIO | None = None):
        return data

    handler.__annotations__["data"] = io.BytesIO
    assert call(lambda: b"").status == 200
    assert isinstance(decode(b"x", io.BytesIO), io.BytesIO)
    assert decode(b"\xff", io.BytesIO).read() == b"\xff"


def test_results_of_these_types_become_json() -> None:
    def handler() -> Any:
        return {
            "user": User(name="a", age=1),
            "order": Point(1),
            "all": [
                Colour.RED,
                decimal.Decimal("1.10"),
                pathlib.Path("a"),
                uuid.UUID(ORDER["id"]),
                dt.date(2026, 1, 2),
            ],
            "set": {1},
        }

    assert call(handler).json == {
        "user": {"name": "a", "age": 1, "since": None},
        "order": [1, 0.0],
        "all": ["red", "1.10", "a", ORDER["id"], "2026-01-02"],
        "set": [1],
    }


def test_a_body_nested_too_deeply_is_the_clients_fault() -> None:
    assert call(lambda body: body, "[" * 100_000).status == 400
