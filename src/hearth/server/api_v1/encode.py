"""Models to the JSON that clients read (API specification 2)."""

from __future__ import annotations

import base64
from typing import Any

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.route import Route, format_cpus
from hearth.models.times import format_time


def app_json(app: App) -> dict[str, Any]:
    """An app."""
    return _without_empty(
        {
            "name": app.name,
            "config": app.config,
            "created_at": format_time(app.created_at),
            "updated_at": format_time(app.updated_at),
        },
        "config",
    )


def route_json(route: Route) -> dict[str, Any]:
    """A route."""
    return _without_empty(
        {
            "app_name": route.app_name,
            "path": route.path,
            "image": route.image,
            "memory": route.memory,
            "cpus": format_cpus(route.cpu_milli),
            "headers": route.headers,
            "type": route.type,
            "format": route.format,
            "timeout": route.timeout,
            "idle_timeout": route.idle_timeout,
            "config": route.config,
            "created_at": format_time(route.created_at),
            "updated_at": format_time(route.updated_at),
        },
        "headers",
        "config",
    )


def call_json(call: Call) -> dict[str, Any]:
    """A call's stored fields."""
    return _without_empty(
        {
            "id": call.id,
            "status": call.status,
            "app_name": call.app_name,
            "path": call.path,
            "completed_at": format_time(call.completed_at),
            "created_at": format_time(call.created_at),
            "started_at": format_time(call.started_at),
            "stats": [{"timestamp": format_time(stat.timestamp), "metrics": stat.metrics} for stat in call.stats],
            "error": call.error,
        },
        "stats",
        "error",
    )


def key_cursor(keys: list[str], page: int) -> str:
    """The cursor behind a full page of apps or routes; empty behind the last."""
    if len(keys) < page:
        return ""
    return base64.urlsafe_b64encode(keys[-1].encode()).decode().rstrip("=")


def _without_empty(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if not fields[name]:
            del fields[name]
    return fields
