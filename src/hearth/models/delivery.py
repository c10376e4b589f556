"""The delivery of a function's async calls: what is kept of them, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hearth.models.annotations import Annotations
from hearth.models.call_result import MAX_TTL_S
from hearth.models.destination import validate_destination
from hearth.models.errors import InvalidDelivery
from hearth.models.retry import RetryPolicy, validate_retry


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rules for the async calls of a function. ``None`` leaves a rule to the defaults of the node.

    Attributes:
        result_ttl_s: Seconds for which the result of a call is kept.
        retry: When a call that fails is run again.
        dead_letters: Calls that fail are kept with their payloads; ``None`` where they are retried.
        expires_s: Seconds after its acceptance in which a call has to start.
        max_queued: Calls that may be queued at one time; further ones are refused.
        max_concurrent_async: Calls that run at one time on one node; further ones stay in the queue.
        idempotency_ttl_s: Seconds for which the answer to a request with an ``Idempotency-Key`` is kept, also to a sync
            one.
        on_success: Where the record of a call that has succeeded is sent: a URL, or ``APP/ROUTE``.
        on_failure: The same for a call that has ended in another way.
    """

    result_ttl_s: int | None = None
    retry: RetryPolicy | None = None
    dead_letters: bool | None = None
    expires_s: int | None = None
    max_queued: int | None = None
    max_concurrent_async: int | None = None
    idempotency_ttl_s: int | None = None
    on_success: str | None = None
    on_failure: str | None = None

    def changed(self, changes: DeliveryChanges) -> Delivery:
        """Return these rules after changes."""
        return msgspec.structs.replace(self, **changes)

    def values(self) -> dict[str, Any]:
        """Return the rules that are set, by name."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


#: New values by name; ``None`` removes a rule.
DeliveryChanges = Mapping[str, Any]

#: Seconds for which a call can be delayed, or in which it has to start: 30 days.
MAX_DELAY_S: Final = 30 * 86_400
#: The most calls that a limit can be.
MAX_CALLS: Final = 1_000_000_000
#: The rules that limit the number of calls.
LIMITS: Final = ("max_queued", "max_concurrent_async")
RULES: Final = Delivery.__struct_fields__
NO_RULES: Final = Delivery()
#: The integers among the rules, with their ranges.
_RANGES: Final = {
    "result_ttl_s": (1, MAX_TTL_S),
    "expires_s": (1, MAX_DELAY_S),
    "idempotency_ttl_s": (1, MAX_TTL_S),
    **dict.fromkeys(LIMITS, (1, MAX_CALLS)),
}
_DESTINATIONS: Final = frozenset({"on_success", "on_failure"})
#: Begins the annotation of a fn that sets a rule.
ANNOTATION: Final = "hearth/"


def validate_delivery(given: Mapping[str, object]) -> DeliveryChanges:
    """Return changes of rules after checking them.

    Raises:
        InvalidDelivery: A value is out of range.
    """
    return {name: _checked(name, value) for name, value in given.items()}


def of_annotations(annotations: Annotations) -> Delivery:
    """Return the rules that the annotations of a fn set.

    Raises:
        InvalidDelivery: A value is out of range.
    """
    found = {name: annotations[f"{ANNOTATION}{name}"] for name in RULES if f"{ANNOTATION}{name}" in annotations}
    if not found:
        return NO_RULES
    return Delivery(**validate_delivery({name: msgspec.json.decode(value) for name, value in found.items()}))


def _checked(name: str, value: object) -> object:
    if value is None:
        return None
    if name == "retry":
        return validate_retry(value)
    if name == "dead_letters":
        if type(value) is not bool:
            raise InvalidDelivery("dead_letters must be true, false, or null for calls that are retried")
        return value
    if name in _DESTINATIONS:
        return validate_destination(name, value)
    least, most = _RANGES[name]
    if type(value) is not int or not least <= value <= most:
        default = "any number" if name in LIMITS else "the node's default"
        raise InvalidDelivery(f"{name} must be an integer from {least} to {most}, or null for {default}")
    return value
