"""From JSON to the type that a handler's annotation names.

An annotation is read once, when the function starts; what it cannot mean is the author's error then. What a call
brings is compared with it for each call; what does not fit is the client's error, and names the field.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from hearth_fdk.context import BadInput

#: Makes a value of the wanted type; the text is where the value stands, as ``body.items[0]``.
Shape = Callable[[Any, str], Any]


class Unsupported(TypeError):
    """An annotation that no JSON can become."""


def shape_of(wanted: Any) -> Shape:
    """Return what makes values of a type.

    Raises:
        Unsupported: JSON cannot become that type.
    """
    return _Shapes().find(wanted)


class _Shapes:
    """The shapes of one annotation; a type that contains itself is met again while it is being read."""

    def __init__(self) -> None:
        self._known: dict[Any, Shape] = {}

    def find(self, wanted: Any) -> Shape:
        try:
            known = self._known.get(wanted)
        except TypeError:  # not hashable: Annotated with a list, say
            return self._make(wanted)
        if known is None:
            self._known[wanted] = lambda value, where: self._known[wanted](value, where)
            known = self._known[wanted] = self._make(wanted)
        return known

    def _make(self, wanted: Any) -> Shape:
        if wanted is Any or wanted is object:
            return lambda value, where: value
        if wanted is None or wanted is type(None):
            return _null
        if isinstance(wanted, NewType):
            return self.find(wanted.__supertype__)
        if isinstance(wanted, TypeVar):
            return self.find(wanted.__bound__ or Any)
        origin = get_origin(wanted)
        if origin is not None:
            return self._generic(wanted, origin, get_args(wanted))
        if hasattr(wanted, "__value__"):  # type Alias = ...
            return self.find(wanted.__value__)
        if isinstance(wanted, type):
            return _simple(wanted) or self._class(wanted)
        raise Unsupported(f"{_name(wanted)} is not supported; {_ADVICE}")

    def _generic(self, wanted: Any, origin: Any, arguments: tuple[Any, ...]) -> Shape:
        if origin is Literal:
            return _literal(arguments)
        if origin is Union or origin is types.UnionType:
            return self._union(arguments)
        if hasattr(wanted, "__metadata__"):  # Annotated
            return self.find(arguments[0])
        if hasattr(origin, "__value__"):
            return self.find(origin.__value__)
        if origin is tuple:
            return self._tuple(arguments)
        name = getattr(origin, "__name__", "")
        if origin in (list, set, frozenset) or (origin.__module__ == "collections.abc" and name in _LISTS):
            make = origin if origin in (set, frozenset) else list
            return self._list(make, self.find(arguments[0]))
        if origin is dict or (origin.__module__ == "collections.abc" and name in _MAPPINGS):
            return self._mapping(*arguments)
        return self._class(origin)

    def _class(self, wanted: Any) -> Shape:
        if (model := _pydantic(wanted)) is not None:
            return model
        if hasattr(wanted, "__dataclass_fields__"):
            return self._dataclass(wanted)
        if hasattr(wanted, "__required_keys__"):
            return self._record(wanted, _keys_of_typed_dict(wanted))
        if issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
            optional = wanted._field_defaults
            return self._record(wanted, {name: name not in optional for name in wanted._fields})
        raise Unsupported(f"{_name(wanted)} is not supported; {_ADVICE}")

    def _dataclass(self, wanted: Any) -> Shape:
        import dataclasses

        missing = dataclasses.MISSING
        fields = {
            field.name: field.default is missing and field.default_factory is missing
            for field in dataclasses.fields(wanted)
            if field.init
        }
        return self._record(wanted, fields)

    def _record(self, wanted: Any, fields: Mapping[str, bool]) -> Shape:
        """Return the shape of an object with named fields, each with a flag: it must be there."""
        hints = hints_of(wanted)
        shapes: dict[str, Shape] = {}
        for name in fields:
            try:
                shapes[name] = self.find(hints.get(name, Any))
            except Unsupported as exc:
                raise Unsupported(f"{wanted.__name__}.{name}: {exc}") from None

        def shape(value: Any, where: str) -> Any:
            _expect(value, dict, where)
            for name, required in fields.items():
                if required and name not in value:
                    raise BadInput(f"{where}.{name}: missing")
            made = {name: shapes[name](value[name], f"{where}.{name}") for name in fields if name in value}
            try:
                return wanted(**made)
            except ValueError as exc:  # its __post_init__ refuses
                raise BadInput(f"{where}: {exc}") from exc

        return shape

    def _union(self, choices: tuple[Any, ...]) -> Shape:
        shapes = [self.find(choice) for choice in choices]
        names = [choice for choice in choices if choice not in (None, type(None))]

        def shape(value: Any, where: str) -> Any:
            if value is None and len(names) < len(choices):
                return None
            if type(value) in choices:  # exactly this: 5 of int | float stays whole
                return shapes[choices.index(type(value))](value, where)
            problems = []
            for choice in shapes:
                try:
                    return choice(value, where)
                except BadInput as exc:
                    problems.append(str(exc))
            told = [problem for problem, choice in zip(problems, choices, strict=True) if choice in names]
            if len(told) == 1:
                raise BadInput(told[0])
            deep = next((problem for problem in told if not problem.startswith(f"{where}: ")), None)
            raise BadInput(deep or f"{where}: expected {' or '.join(_word(name) for name in names)}")

        return shape

    def _list(self, make: Callable[[Any], Any], item: Shape) -> Shape:
        def shape(value: Any, where: str) -> Any:
            _expect(value, list, where)
            return make(item(one, f"{where}[{number}]") for number, one in enumerate(value))

        return shape

    def _tuple(self, arguments: tuple[Any, ...]) -> Shape:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return self._list(tuple, self.find(arguments[0]))
        items = [self.find(argument) for argument in arguments]

        def shape(value: Any, where: str) -> Any:
            _expect(value, list, where)
            if len(value) != len(items):
                raise BadInput(f"{where}: expected a list of {len(items)}")
            pairs = enumerate(zip(items, value, strict=True))
            return tuple(item(one, f"{where}[{number}]") for number, (item, one) in pairs)

        return shape

    def _mapping(self, key_type: Any, value_type: Any) -> Shape:
        key_shape, value_shape = _key(key_type) or self.find(key_type), self.find(value_type)

        def shape(value: Any, where: str) -> Any:
            _expect(value, dict, where)
            return {key_shape(key, f"{where}.{key}"): value_shape(one, f"{where}.{key}") for key, one in value.items()}

        return shape


def _keys_of_typed_dict(wanted: Any) -> dict[str, bool]:
    """Return the keys, each with whether it must be there."""
    fields = dict.fromkeys(wanted.__optional_keys__, False) | dict.fromkeys(wanted.__required_keys__, True)
    for name, hint in get_type_hints(wanted, include_extras=True).items():
        # Annotations that are kept as text hide these from the class itself.
        word = str(get_origin(hint)).rpartition(".")[2]
        if word in ("Required", "NotRequired"):
            fields[name] = word == "Required"
    return fields


def hints_of(what: Any) -> dict[str, Any]:
    """Return the annotations of a class or function, evaluated.

    Raises:
        Unsupported: One names what is not there when the function runs.
    """
    try:
        return get_type_hints(what)
    except NameError as exc:
        raise Unsupported(f"{what.__name__}: an annotation cannot be evaluated: {exc}") from exc
    except TypeError as exc:
        raise Unsupported(f"{what.__name__}: an annotation is not a type: {exc}") from exc


_ADVICE = "take dict, a dataclass, a TypedDict or a pydantic model"
_LISTS = ("Sequence", "MutableSequence", "Collection", "Iterable")
_MAPPINGS = ("Mapping", "MutableMapping")
_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _name(wanted: Any) -> str:
    return wanted.__qualname__ if isinstance(wanted, type) else str(wanted)


def _word(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return f"one of {', '.join(map(repr, get_args(wanted)))}"
    return _WORDS.get(get_origin(wanted) or wanted, _name(wanted))


def _null(value: Any, where: str) -> None:
    if value is not None:
        raise BadInput(f"{where}: expected null")


def _expect(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadInput(f"{where}: expected {_WORDS.get(kind, kind.__name__)}")


def _literal(choices: tuple[Any, ...]) -> Shape:
    def shape(value: Any, where: str) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise BadInput(f"{where}: {value!r} is none of {', '.join(map(repr, choices))}")

    return shape


def _simple(wanted: type) -> Shape | None:
    """Return the shape of a type without fields of its own."""
    if wanted in (str, int, bool, dict, list):

        def exactly(value: Any, where: str) -> Any:
            _expect(value, wanted, where)
            return value

        return exactly
    if wanted is float:
        return _number
    if wanted in (tuple, set, frozenset):

        def collected(value: Any, where: str) -> Any:
            _expect(value, list, where)
            return wanted(value)

        return collected
    if wanted is bytes:
        raise Unsupported("bytes within JSON is not supported; take str")
    return _enum(wanted) or _of_text(wanted)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where}: expected a number")
    try:
        return float(value)
    except OverflowError:
        raise BadInput(f"{where}: the number is too large") from None


def _enum(wanted: Any) -> Shape | None:
    enum = sys.modules.get("enum")
    if enum is None or not issubclass(wanted, enum.Enum):
        return None

    def shape(value: Any, where: str) -> Any:
        for member in wanted:
            if type(member.value) is type(value) and member.value == value:
                return member
        raise BadInput(f"{where}: {value!r} is none of {', '.join(repr(member.value) for member in wanted)}")

    return shape


def _of_text(wanted: type) -> Shape | None:
    """Return the shape of a type that JSON holds as text. Its module is imported: the annotation was evaluated."""
    for module, names, word, make in _TEXTS:
        loaded = sys.modules.get(module)
        if loaded is not None and wanted in [getattr(loaded, name) for name in names]:
            return _parsed(make(wanted), word)
    return None


def _parsed(parse: Callable[[Any], Any], word: str) -> Shape:
    def shape(value: Any, where: str) -> Any:
        try:
            return parse(value)
        except (ValueError, TypeError, ArithmeticError, AttributeError):
            raise BadInput(f"{where}: expected {word}") from None

    return shape


def _iso(wanted: Any) -> Callable[[Any], Any]:
    return lambda value: wanted.fromisoformat(value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value)


def _text(wanted: Any) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError
        return wanted(value)

    return parse


def _decimal(wanted: Any) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError
        made = wanted(str(value))
        if not made.is_finite():
            raise ValueError
        return made

    return parse


def _seconds(wanted: Any) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if isinstance(value, bool):
            raise TypeError
        return wanted(seconds=value)

    return parse


#: Module, types in it, the description for clients, the function that makes a value.
_TEXTS: tuple[tuple[str, tuple[str, ...], str, Callable[[Any], Callable[[Any], Any]]], ...] = (
    ("datetime", ("datetime",), "a date and time, as 2026-01-31T12:00:00Z", _iso),
    ("datetime", ("date",), "a date, as 2026-01-31", _iso),
    ("datetime", ("time",), "a time, as 12:00:00", _iso),
    ("datetime", ("timedelta",), "a number of seconds", _seconds),
    ("uuid", ("UUID",), "a UUID", _text),
    ("decimal", ("Decimal",), "a decimal number", _decimal),
    ("pathlib", ("Path", "PurePath", "PosixPath", "PurePosixPath"), "a path", _text),
)


def _key(wanted: Any) -> Shape | None:
    """Return the shape of a mapping's keys, which JSON holds as text."""
    if wanted is not int and wanted is not float:
        return None

    def shape(value: Any, where: str) -> Any:
        try:
            return wanted(value)
        except ValueError:
            raise BadInput(f"{where}: the name is not {_WORDS[wanted]}") from None

    return shape


def _pydantic(wanted: Any) -> Shape | None:
    """Return the shape of a pydantic model, made by the pydantic that is installed in the function."""
    validate = getattr(wanted, "model_validate", None)
    if validate is None and hasattr(wanted, "__pydantic_validator__"):  # a dataclass of pydantic's
        validate = sys.modules["pydantic"].TypeAdapter(wanted).validate_python
    if validate is None and hasattr(wanted, "__fields__"):
        validate = getattr(wanted, "parse_obj", None)  # pydantic 1
    if validate is None:
        return None

    def shape(value: Any, where: str) -> Any:
        try:
            return validate(value)
        except ValueError as exc:
            raise BadInput(_first_error(exc, where)) from exc

    return shape


def _first_error(exc: ValueError, where: str) -> str:
    """Return the first error that pydantic found, with its field."""
    errors = exc.errors() if hasattr(exc, "errors") else []
    if not errors:
        return f"{where}: {exc}"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in errors[0]["loc"])
    return f"{where}{place}: {errors[0]['msg']}"
