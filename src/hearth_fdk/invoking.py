"""From a call's bytes to what a handler's annotations ask for, and back."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hearth_fdk.context import BadInput, Call, Context


class Invoker:
    """Calls one handler.

    A handler takes nothing, the body, or the context and the body; a parameter that is annotated as ``Context``, or
    named ``ctx`` or ``context``, gets the context, the other one the body in the type of its annotation: ``bytes``,
    ``str``, anything else as JSON (a dataclass or a TypedDict is checked field by field). Without an annotation the
    body is JSON.

    Raises:
        TypeError: It asks for more than that.
    """

    def __init__(self, handler: Callable[..., Any], config: Mapping[str, str]) -> None:
        self._handler = handler
        self._config = config
        self.is_async = inspect.iscoroutinefunction(handler)
        hints = get_type_hints(handler)
        self._context_name: str | None = None
        self._body_name: str | None = None
        self._body_type: Any = Any
        for name, parameter in inspect.signature(handler).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if hints.get(name) is Context or (name in ("ctx", "context") and name not in hints):
                self._context_name = name
            elif self._body_name is None:
                self._body_name, self._body_type = name, hints.get(name, Any)
            elif parameter.default is parameter.empty:
                raise TypeError(f"{handler.__name__}: who should give {name!r}? A handler takes a context and a body")

    def context(self, call: Call) -> Context:
        """What the handler gets as its context."""
        return Context(call, self._config)

    def arguments(self, context: Context) -> dict[str, Any]:
        """What the handler is called with.

        Raises:
            BadInput: The body is not what it asks for.
        """
        given: dict[str, Any] = {}
        if self._context_name is not None:
            given[self._context_name] = context
        if self._body_name is not None:
            given[self._body_name] = decode(context.body, self._body_type)
        return given

    def __call__(self, context: Context) -> Any:
        """Call it; of an async handler, what is to be awaited."""
        return self._handler(**self.arguments(context))


def decode(body: bytes, wanted: Any) -> Any:
    """A body in the type that is wanted.

    Raises:
        BadInput: It is not of that type.
    """
    if wanted is bytes:
        return body
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise BadInput("the body is not UTF-8") from exc
    if wanted is str:
        return text
    if not text.strip():
        return {} if wanted in (Any, dict) or get_origin(wanted) is dict else shape(_empty(wanted), wanted, "body")
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise BadInput(f"the body is not JSON: {exc}") from exc
    return shape(value, wanted, "body")


def _empty(wanted: Any) -> Any:
    return {} if _fields(wanted) is not None else None


def shape(value: Any, wanted: Any, where: str) -> Any:
    """A JSON value as the wanted type: dataclasses are made, TypedDicts, lists and mappings are checked.

    Raises:
        BadInput: It does not fit; the text says where.
    """
    if wanted is Any or wanted is object:
        return value
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        if value not in arguments:
            raise BadInput(f"{where}: {value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin is Union or origin is types.UnionType:
        return _one_of(value, arguments, where)
    if (fields := _fields(wanted)) is not None:
        return _record(value, wanted, fields, where)
    if origin is list and arguments:
        _expect(value, list, where)
        return [shape(item, arguments[0], f"{where}[{number}]") for number, item in enumerate(value)]
    if origin is dict and arguments:
        _expect(value, dict, where)
        return {key: shape(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    expected = origin or wanted
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(expected, type):
        _expect(value, expected, where)
    return value


def _one_of(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    problems = []
    for choice in choices:
        try:
            return shape(value, choice, where)
        except BadInput as exc:
            problems.append(str(exc))
    raise BadInput(problems[0])


def _fields(wanted: Any) -> dict[str, bool] | None:
    """Names of a record's fields, each with whether it must be there; ``None`` if this is no record."""
    if not isinstance(wanted, type):
        return None
    if hasattr(wanted, "__dataclass_fields__"):
        import dataclasses

        missing = dataclasses.MISSING
        return {
            field.name: field.default is missing and field.default_factory is missing
            for field in dataclasses.fields(wanted)
            if field.init
        }
    if hasattr(wanted, "__required_keys__"):
        return {name: name in wanted.__required_keys__ for name in wanted.__annotations__}
    return None


def _record(value: Any, wanted: Any, fields: dict[str, bool], where: str) -> Any:
    _expect(value, dict, where)
    hints = get_type_hints(wanted)
    for name, required in fields.items():
        if required and name not in value:
            raise BadInput(f"{where}.{name}: missing")
    made = {name: shape(value[name], hints[name], f"{where}.{name}") for name in fields if name in value}
    return wanted(**made)


_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _expect(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadInput(f"{where}: expected {_WORDS.get(kind, kind.__name__)}")


def encode(value: Any) -> tuple[bytes, str]:
    """A handler's result as a body and its content type.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    if value is None:
        return b"", "text/plain; charset=utf-8"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), "application/octet-stream"
    if isinstance(value, str):
        return value.encode(), "text/plain; charset=utf-8"
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False).encode(), "application/json"


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a handler's result holds a {type(value).__name__}, which JSON cannot")
