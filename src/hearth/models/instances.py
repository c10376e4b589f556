"""The number of containers of a function on each node: those that are kept ready, and the most that there may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from hearth.models.annotations import Annotations
from hearth.models.errors import InvalidInstances
from hearth.models.function import DEFAULT


class Instances(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The bounds of the number of containers of a function, on each node.

    Attributes:
        min_instances: Containers that are started in advance and kept ready.
        max_instances: Containers that there may be; ``None`` for any number.
    """

    min_instances: int = 0
    max_instances: int | None = None

    def changed(self, changes: InstanceChanges) -> Instances:
        """Return these bounds after changes, not yet validated."""
        return msgspec.structs.replace(self, **{name: changes[name] for name in BOUNDS if name in changes})

    def values(self) -> dict[str, Any]:
        """Return the bounds that are set, by name."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class KeptReady(NamedTuple):
    """The functions that keep containers ready.

    Attributes:
        routes: App and path of each route.
        fns: The id of each fn.
    """

    routes: list[tuple[str, str]]
    fns: list[str]


#: The most routes, and the most fns, of which a node keeps containers ready: it looks them up every few seconds.
MOST_KEPT_READY: Final = 1000
NONE_KEPT_READY: Final = KeptReady([], [])
#: New values by name; ``None`` removes a bound.
InstanceChanges = Mapping[str, Any]

BOUNDS: Final = Instances.__struct_fields__
ANY_NUMBER: Final = Instances()
#: The most containers that a bound can be.
MAX_INSTANCES: Final = 10_000
_LEAST: Final = {"min_instances": 0, "max_instances": 1}
_NONE: Final = {"min_instances": "none", "max_instances": "any number"}
#: Begins the annotation of a fn that sets a bound.
_ANNOTATION: Final = "hearth/"
#: The annotation of a fn with the most containers that there may be.
MAX_INSTANCES_KEY: Final = f"{_ANNOTATION}max_instances"
ANNOTATIONS: Final = frozenset(f"{_ANNOTATION}{name}" for name in BOUNDS)


def validate_instances(given: Mapping[str, object]) -> InstanceChanges:
    """Return changes of bounds after checking each.

    Raises:
        InvalidInstances: A value is out of range.
    """
    return {name: _checked(name, value) for name, value in given.items()}


def check_instances(instances: Instances, contract: str) -> None:
    """Check bounds against each other and against the way in which the function is called.

    Raises:
        InvalidInstances: They do not fit together.
    """
    least, most = instances.min_instances, instances.max_instances
    if most is not None and least > most:
        raise InvalidInstances(f"min_instances {least} is above max_instances {most}")
    if least and contract == DEFAULT:
        raise InvalidInstances("min_instances needs the format http, json or http-stream, not default")


def of_annotations(annotations: Annotations) -> Instances:
    """Return the bounds that the annotations of a fn set.

    Raises:
        InvalidInstances: A value is out of range.
    """
    found = {name: annotations[f"{_ANNOTATION}{name}"] for name in BOUNDS if f"{_ANNOTATION}{name}" in annotations}
    if not found:
        return ANY_NUMBER
    return ANY_NUMBER.changed(validate_instances({name: msgspec.json.decode(text) for name, text in found.items()}))


def _checked(name: str, value: object) -> int | None:
    least = _LEAST[name]
    if value is None:
        return 0 if name == "min_instances" else None
    if type(value) is not int or not least <= value <= MAX_INSTANCES:
        raise InvalidInstances(f"{name} must be an integer from {least} to {MAX_INSTANCES}, or null for {_NONE[name]}")
    return value
