"""Make a stored route equal to a function's file."""

from __future__ import annotations

from typing import Any, Final

from hearth.models.function import DEFAULT, DEFAULT_MEMORY_MIB, SYNC
from hearth.models.route import DEFAULT_IDLE_TIMEOUT_S, DEFAULT_TIMEOUT_S
from hearth.models.secret import ENV

#: The fields of a route that its function's file does not set.
_DEFAULTS: Final[dict[str, Any]] = {
    "memory": DEFAULT_MEMORY_MIB,
    "type": SYNC,
    "format": DEFAULT,
    "timeout": DEFAULT_TIMEOUT_S,
    "idle_timeout": DEFAULT_IDLE_TIMEOUT_S,
    "secrets": [],
    "secrets_as": ENV,
    "concurrency": 1,
    "min_instances": None,
    "max_instances": None,
    "retry": None,
    "result_ttl_s": None,
    "expires_s": None,
    "dead_letters": None,
    "max_queued": None,
    "max_concurrent_async": None,
    "idempotency_ttl_s": None,
    "on_success": None,
    "on_failure": None,
}


def as_change(stored: dict[str, Any], route: dict[str, Any]) -> dict[str, Any]:
    """Return the change that gives a stored route the fields of another, and the defaults for those it lacks.

    Configuration that only the stored route has stays: see :func:`foreign_config`. A CPU limit stays as well, as the
    API has no change that removes one.
    """
    known = {name.lower() for name in route.get("headers", {})}
    removed: dict[str, list[str]] = {name: [] for name in stored.get("headers", {}) if name.lower() not in known}
    return {**_DEFAULTS, **route, "headers": {**removed, **route.get("headers", {})}}


def foreign_config(stored: dict[str, Any], route: dict[str, Any]) -> list[str]:
    """Return the names of configuration that only the stored route has, because it was set by hand."""
    return sorted(set(stored.get("config", {})) - set(route.get("config", {})))


def resets(stored: dict[str, Any], route: dict[str, Any]) -> list[str]:
    """Return the fields, as text, that go back to their defaults because the function's file does not set them."""
    return [
        f"{name} {stored[name]} -> {'none' if default is None else default}"
        for name, default in _DEFAULTS.items()
        if name not in route and stored.get(name, default) != default
    ]
