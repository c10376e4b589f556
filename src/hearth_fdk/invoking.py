"""From a call's bytes to what a handler's annotations ask for, and back."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, get_origin

from hearth_fdk.context import BadInput, Call, Context
from hearth_fdk.shaping import Shape, Unsupported, hints_of, shape_of

#: The content type of what is neither bytes nor text.
JSON = "application/json"


class Invoker:
    """Calls one handler.

    A handler takes nothing, the body, or the context and the body; a parameter that is annotated as ``Context``, or
    named ``ctx`` or ``context``, gets the context, the other one the body in the type of its annotation: ``bytes``,
    ``str``, anything else as JSON, checked field by field. Without an annotation the body is JSON.

    Raises:
        TypeError: It asks for more than that, or for a type that JSON cannot become.
    """

    def __init__(self, handler: Callable[..., Any], config: Mapping[str, str]) -> None:
        self._handler = handler
        self._config = config
        self.is_async = inspect.iscoroutinefunction(handler)
        hints = hints_of(handler)
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
        try:
            self._shape = None if _takes_bytes(self._body_type) else shape_of(self._body_type)
        except Unsupported as exc:
            raise TypeError(f"{handler.__name__}({self._body_name}): {exc}") from None

    def context(self, call: Call) -> Context:
        """Return the context of the handler."""
        return Context(call, self._config)

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the arguments of the handler.

        Raises:
            BadInput: The body is not what it asks for.
        """
        given: dict[str, Any] = {}
        if self._context_name is not None:
            given[self._context_name] = context
        if self._body_name is not None:
            given[self._body_name] = decode(context.body, self._body_type, self._shape)
        return given

    def __call__(self, context: Context) -> Any:
        """Call it; of an async handler, what is to be awaited."""
        return self._handler(**self.arguments(context))


def decode(body: bytes, wanted: Any, shape: Shape | None = None) -> Any:
    """Return a body in the type that is wanted; ``shape`` is that of the type, unless it takes the body as it is.

    Raises:
        BadInput: It is not of that type.
    """
    if wanted is bytes:
        return body
    if _is_stream(wanted):
        return wanted(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise BadInput("the body is not UTF-8") from exc
    if wanted is str:
        return text
    shape = shape or shape_of(wanted)
    if not text.strip():
        return shape(_empty(wanted), "body")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadInput(f"the body is not JSON: {exc}") from exc
    return shape(value, "body")


def _takes_bytes(wanted: Any) -> bool:
    return wanted is bytes or wanted is str or _is_stream(wanted)


def _is_stream(wanted: Any) -> bool:
    """Return whether a type is ``io.BytesIO``, which handlers for Fn's kit take."""
    return isinstance(wanted, type) and (wanted.__module__, wanted.__name__) == ("_io", "BytesIO")


def _empty(wanted: Any) -> Any:
    """Return the value that an empty body stands for."""
    if wanted in (Any, dict) or get_origin(wanted) is dict or (isinstance(wanted, type) and _has_fields(wanted)):
        return {}
    return None


def _has_fields(wanted: type) -> bool:
    names = ("__dataclass_fields__", "__required_keys__", "model_fields", "__fields__", "_fields")
    return any(hasattr(wanted, name) for name in names)


def encode(value: Any) -> tuple[bytes, str]:
    """Return a handler's result as a body and its content type.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    if value is None:
        return b"", "text/plain; charset=utf-8"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), "application/octet-stream"
    if isinstance(value, str):
        return value.encode(), "text/plain; charset=utf-8"
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False).encode(), JSON


#: Types that JSON holds as their text.
_TEXTS = {("uuid", "UUID"), ("decimal", "Decimal"), ("pathlib", "PurePath")}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return list(value)
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(value).__mro__}
    if ("enum", "Enum") in kinds:
        return value.value
    if kinds & _TEXTS:
        return str(value)
    raise TypeError(f"a handler's result holds a {type(value).__name__}, which JSON cannot")
