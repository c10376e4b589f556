"""Models to the JSON that clients read (API specification 2)."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from hearth.models.app import App
from hearth.models.audit import AuditEvent
from hearth.models.call import Call
from hearth.models.call_auth import Signature
from hearth.models.registry_login import registry_of_login
from hearth.models.route import Route, format_cpus
from hearth.models.schedule import Schedule
from hearth.models.secret import ENV, Secret
from hearth.models.times import ZERO, format_time
from hearth.models.token import Token

#: Stands for each value of a configuration in answers to principals that may not see values.
HIDDEN: Final = "***"


def app_json(app: App, *, shows_config: bool = True) -> dict[str, Any]:
    """Return an app; ``shows_config``: with the values of its configuration."""
    return _without_empty(
        {
            "name": app.name,
            "config": _config(app.config, shows_config),
            "created_at": format_time(app.created_at),
            "updated_at": format_time(app.updated_at),
            "id": app.id,
            "secrets": app.secrets,
            "auth": app.auth,
            "quotas": app.quotas.values(),
            "syslog_url": app.syslog_url,
        },
        "config",
        "id",
        "secrets",
        "auth",
        "quotas",
        "syslog_url",
    )


def route_json(route: Route, *, shows_config: bool = True) -> dict[str, Any]:
    """Return a route; ``shows_config``: with the values of its configuration."""
    return (
        _without_empty(
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
                "config": _config(route.config, shows_config),
                "created_at": format_time(route.created_at),
                "updated_at": format_time(route.updated_at),
                "secrets": route.secrets,
                "secrets_as": route.secrets_as if route.secrets_as != ENV else "",
                "auth": route.auth,
                "signature": _signature(route.signature),
                "concurrency": route.concurrency if route.concurrency > 1 else 0,
                "digest": route.digest,
            },
            "headers",
            "config",
            "secrets",
            "secrets_as",
            "auth",
            "signature",
            "concurrency",
            "digest",
        )
        | route.instances.values()
        | route.delivery.values()
    )


def _signature(signature: Signature | None) -> dict[str, Any]:
    """Return the signature that a route asks for, with the defaults of its style; empty for none."""
    if signature is None:
        return {}
    return {
        "style": signature.style,
        "secret": signature.secret,
        "header": signature.header_name,
        "tolerance": signature.tolerance,
    }


def _config(config: Mapping[str, str], shows_values: bool) -> Mapping[str, str]:
    return config if shows_values else dict.fromkeys(config, HIDDEN)


def secret_json(secret: Secret) -> dict[str, Any]:
    """Return what may be shown of a secret."""
    return {"name": secret.name, "updated_at": format_time(secret.updated_at), "version": secret.version}


def login_json(secret: Secret) -> dict[str, Any]:
    """Return what may be shown of a login at a registry."""
    shown = {"updated_at": format_time(secret.updated_at), "version": secret.version}
    return {"registry": registry_of_login(secret.name), **shown}


def call_json(call: Call) -> dict[str, Any]:
    """Return the stored fields of a call."""
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
            "response_status": call.response_status,
            "attempt": call.attempt,
            "attempts": call.attempts,
            "origin": call.origin,
            "dead": call.dead,
        },
        "stats",
        "error",
        "response_status",
        "attempt",
        "attempts",
        "origin",
        "dead",
    )


def schedule_json(schedule: Schedule, now: dt.datetime, *, shows_values: bool = True) -> dict[str, Any]:
    """Return a schedule with its next firing times; ``shows_values``: with its payload and the values of headers."""
    rule = schedule.definition
    headers = rule.headers if shows_values else {name: [HIDDEN] * len(found) for name, found in rule.headers.items()}
    fields = {
        "id": schedule.id,
        "name": schedule.name,
        "route" if rule.is_of_route else "fn_id": rule.function,
        "cron": rule.timing.cron,
        "timezone": rule.timing.timezone,
        "every": rule.timing.every,
        "at": rule.timing.at,
        "payload": rule.payload if shows_values or not rule.payload else HIDDEN,
        "headers": headers,
        "enabled": rule.enabled,
        "if_missed": rule.if_missed,
        "overlap": rule.overlap,
        "created_at": format_time(schedule.created_at),
        "updated_at": format_time(schedule.updated_at),
        "next": [format_time(moment) for moment in schedule.coming(now)],
        "last_due": "" if schedule.last_due == ZERO else format_time(schedule.last_due),
        "last_call": schedule.last_call,
    }
    return _without_empty(fields, *("cron", "timezone", "every", "at", "payload", "headers", "last_due", "last_call"))


def token_json(token: Token) -> dict[str, Any]:
    """Return a token without its value."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "apps": list(token.apps),
        "created_at": format_time(token.created_at),
        "last_used_at": _time_or_none(token.last_used_at),
        "expires_at": _time_or_none(token.expires_at),
    }


def event_json(event: AuditEvent) -> dict[str, Any]:
    """Return an event of the audit log."""
    return {
        "id": event.id,
        "created_at": format_time(event.created_at),
        "principal": event.principal,
        "token_id": event.token_id,
        "action": event.action,
        "app": event.app,
        "resource": event.resource,
        "status": event.status,
        "address": event.address,
    }


def _time_or_none(time: dt.datetime) -> str | None:
    return None if time == ZERO else format_time(time)


def key_cursor(keys: list[str], page: int) -> str:
    """Return the cursor after a full page of apps, routes or tokens; empty after the last page."""
    if len(keys) < page:
        return ""
    return base64.urlsafe_b64encode(keys[-1].encode()).decode().rstrip("=")


def _without_empty(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if not fields[name]:
            del fields[name]
    return fields
