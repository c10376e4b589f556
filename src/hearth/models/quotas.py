"""The quotas of an app: how much of a node it may use, and its weight when apps compete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from hearth.models.errors import InvalidQuota

MAX_WEIGHT: Final = 1000
MAX_QUOTA: Final = 2**53 - 1


class Quotas(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The quotas of an app. ``None`` leaves a quota to the defaults of the node, 0 means no limit.

    Attributes:
        memory_mib: Memory of the containers of the app at one time, in MiB.
        concurrent_calls: Sync calls in progress and async calls that run.
        waiting_calls: Sync calls that wait for a container.
        calls_per_second: Calls that are accepted, on average.
        burst: Calls that are accepted at once after a quiet time; by default those of one second.
        queued_calls: Accepted async calls that have not started.
        stored_bytes: Bytes of queued async calls, dead letters, results, stored answers of idempotency keys, and logs.
        request_bytes: Bytes of the body of a request.
        weight: The share of the app when memory is short, relative to that of other apps.
    """

    memory_mib: int | None = None
    concurrent_calls: int | None = None
    waiting_calls: int | None = None
    calls_per_second: int | None = None
    burst: int | None = None
    queued_calls: int | None = None
    stored_bytes: int | None = None
    request_bytes: int | None = None
    weight: int | None = None

    def over(self, defaults: Quotas) -> Quotas:
        """Return these quotas, with those of the defaults where this has none; a quota of 0 becomes ``None``."""
        found = {}
        for name in QUOTAS:
            own = getattr(self, name)
            found[name] = (getattr(defaults, name) if own is None else own) or None
        return Quotas(**found)

    def changed(self, changes: QuotaChanges) -> Quotas:
        """Return these quotas after changes."""
        return msgspec.structs.replace(self, **changes)

    def values(self) -> dict[str, int]:
        """Return the quotas that are set, by name."""
        return {name: value for name in QUOTAS if (value := getattr(self, name)) is not None}


#: New values by name; ``None`` removes a quota.
QuotaChanges = Mapping[str, int | None]

QUOTAS: Final = Quotas.__struct_fields__
NO_QUOTAS: Final = Quotas()


def validate_quotas(given: Mapping[str, object]) -> QuotaChanges:
    """Return changes of quotas after checking them.

    Raises:
        InvalidQuota: There is no such quota, or the value is out of range.
    """
    changes: dict[str, int | None] = {}
    for name, value in given.items():
        if name not in QUOTAS:
            raise InvalidQuota(f"{name!r} is not one of {', '.join(QUOTAS)}")
        least, most = (1, MAX_WEIGHT) if name == "weight" else (0, MAX_QUOTA)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise InvalidQuota(f"{name} must be an integer from {least} to {most}, or null for the node's default")
        changes[name] = value
    return changes
