"""Models to the JSON of API v2."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from hearth.models.annotations import HTTP_ENDPOINT, INVOKE_ENDPOINT
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.fn import Fn
from hearth.models.times import ZERO, format_time
from hearth.models.trigger import Trigger
from hearth.server.api_v1.encode import HIDDEN

_NS: Final = 1000


def app_json(app: App, *, shows_config: bool) -> dict[str, Any]:
    """Return an app; ``shows_config``: with the values of its configuration."""
    return _without_empty(
        {
            "id": app.id,
            "name": app.name,
            "config": _config(app.config, shows_config),
            "annotations": _raw(app.annotations),
            "syslog_url": app.syslog_url,
            "shape": app.shape,
            "secrets": app.secrets,
            "auth": app.auth,
            "quotas": app.quotas.values(),
            "created_at": format_time(app.created_at),
            "updated_at": format_time(app.updated_at),
        },
        *("config", "annotations", "syslog_url", "shape", "secrets", "auth", "quotas"),
    )


def fn_json(fn: Fn, base: str, *, shows_config: bool) -> dict[str, Any]:
    """Return a fn.

    Args:
        fn: The fn.
        base: The beginning of the address at which it is called.
        shows_config: Whether to show the values of its configuration.
    """
    endpoint = msgspec.json.encode(f"{base}/invoke/{fn.id}")
    return _without_empty(
        {
            "id": fn.id,
            "name": fn.name,
            "app_id": fn.app_id,
            "image": fn.image,
            "memory": fn.memory,
            "timeout": fn.timeout,
            "idle_timeout": fn.idle_timeout,
            "config": _config(fn.config, shows_config),
            "annotations": _raw(fn.annotations) | {INVOKE_ENDPOINT: msgspec.Raw(endpoint)},
            "shape": fn.shape,
            "digest": fn.digest,
            "created_at": format_time(fn.created_at),
            "updated_at": format_time(fn.updated_at),
        },
        "shape",
        "digest",
    )


def trigger_json(trigger: Trigger, base: str, app_name: str) -> dict[str, Any]:
    """Return a trigger of an app.

    Args:
        trigger: The trigger.
        base: The beginning of the address at which it is called.
        app_name: The name of its app.
    """
    endpoint = f"{base}/t/{quote(app_name, safe='')}/{quote(trigger.source.removeprefix('/'))}"
    return {
        "id": trigger.id,
        "name": trigger.name,
        "app_id": trigger.app_id,
        "fn_id": trigger.fn_id,
        "type": trigger.type,
        "source": trigger.source,
        "annotations": _raw(trigger.annotations) | {HTTP_ENDPOINT: msgspec.Raw(msgspec.json.encode(endpoint))},
        "created_at": format_time(trigger.created_at),
        "updated_at": format_time(trigger.updated_at),
    }


def call_json(call: Call, fn: Fn) -> dict[str, Any]:
    """Return the stored fields of a call of a fn."""
    has_run = call.started_at != ZERO and call.completed_at != ZERO
    lasted = (call.completed_at - call.started_at) // dt.timedelta(microseconds=1) if has_run else 0
    return _without_empty(
        {
            "id": call.id,
            "status": call.status,
            "app_id": fn.app_id,
            "app_name": call.app_name,
            "fn_id": fn.id,
            "trigger_id": call.trigger_id,
            "created_at": format_time(call.created_at),
            "started_at": format_time(call.started_at),
            "completed_at": format_time(call.completed_at),
            "execution_duration": max(0, lasted) * _NS,
            "stats": [{"timestamp": format_time(stat.timestamp), "metrics": stat.metrics} for stat in call.stats],
            "error": call.error,
            "attempt": call.attempt,
            "attempts": call.attempts,
            "origin": call.origin,
            "dead": call.dead,
        },
        *("trigger_id", "stats", "error", "attempt", "attempts", "origin", "dead"),
    )


def page_json(items: Sequence[Mapping[str, Any]], last_key: str, page: int) -> dict[str, Any]:
    """Return a page of a list.

    Args:
        items: Its items.
        last_key: The key of the last one.
        page: How many items a full page has: only behind a full one there may be more.
    """
    if len(items) < page:
        return {"items": items}
    return {"items": items, "next_cursor": base64.urlsafe_b64encode(last_key.encode()).decode().rstrip("=")}


def _config(config: Mapping[str, str], shows_values: bool) -> Mapping[str, str]:
    return config if shows_values else dict.fromkeys(config, HIDDEN)


def _raw(annotations: Mapping[str, str]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(value.encode()) for key, value in annotations.items()}


def _without_empty(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if not fields[name]:
            del fields[name]
    return fields
