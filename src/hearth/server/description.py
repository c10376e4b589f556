"""The published description of the API (API specification 11), and the page that shows it."""

from __future__ import annotations

from typing import Any, Final

from hearth import FN_VERSION
from hearth.models.call import STAT_NAMES

_MAP: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_TIME: Final = {"type": "string", "format": "date-time", "readOnly": True}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(key: str, item: str) -> dict[str, Any]:
    return _object(
        message={"type": "string"}, next_cursor={"type": "string"}, **{key: {"type": "array", "items": _ref(item)}}
    )


_SCHEMAS: Final[dict[str, Any]] = {
    "App": _object(
        name={"type": "string", "pattern": "^[0-9A-Za-z_-]{1,30}$"},
        config=_MAP,
        created_at=_TIME,
        updated_at=_TIME,
    ),
    "Route": _object(
        app_name={"type": "string", "readOnly": True},
        path={"type": "string"},
        image={"type": "string"},
        memory={"type": "integer", "format": "uint64", "minimum": 0, "default": 128},
        cpus={"type": "string"},
        headers={"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
        type={"type": "string", "enum": ["sync", "async"]},
        format={"type": "string", "enum": ["default", "http", "json"]},
        timeout={"type": "integer", "format": "int32", "default": 30},
        idle_timeout={"type": "integer", "format": "int32", "default": 30},
        config=_MAP,
        created_at=_TIME,
        updated_at=_TIME,
    ),
    "Stat": _object(
        timestamp=_TIME,
        metrics=_object(**{name: {"type": "integer", "format": "int64"} for name in STAT_NAMES}),
    ),
    "Call": _object(
        id={"type": "string", "readOnly": True},
        status={"type": "string", "enum": ["queued", "running", "success", "error", "timeout"]},
        app_name={"type": "string"},
        path={"type": "string"},
        created_at=_TIME,
        started_at=_TIME,
        completed_at=_TIME,
        stats={"type": "array", "items": _ref("Stat")},
        error={"type": "string"},
    ),
    "Log": _object(call_id={"type": "string"}, log={"type": "string"}, app_name={"type": "string"}),
    "Version": _object(version={"type": "string"}),
    "ErrorBody": _object(message={"type": "string"}, fields={"type": "string"}),
    "Error": _object(error=_ref("ErrorBody")),
    "AppWrapper": _object(message={"type": "string"}, app=_ref("App")),
    "AppsWrapper": _list("apps", "App"),
    "RouteWrapper": _object(message={"type": "string"}, route=_ref("Route")),
    "RoutesWrapper": _list("routes", "Route"),
    "CallWrapper": _object(message={"type": "string"}, call=_ref("Call")),
    "CallsWrapper": _list("calls", "Call"),
    "LogWrapper": _object(message={"type": "string"}, log=_ref("Log")),
    "Message": _object(message={"type": "string"}),
}


def _in(place: str, name: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}


def _operation(tag: str, summary: str, result: str, *, body: str = "", query: str = "", text: bool = False) -> Any:
    content: dict[str, Any] = {"application/json": {"schema": _ref(result)}}
    if text:
        content["text/plain"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": content},
            "default": {"description": "Error", "content": {"application/json": {"schema": _ref("Error")}}},
        },
    }
    if query:
        operation["parameters"] = [_in("query", name) for name in query.split()]
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _path(names: str, **operations: Any) -> dict[str, Any]:
    return {"parameters": [_in("path", name) for name in names.split()], **operations}


DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.0.3",
    "info": {
        "title": "Hearth",
        "version": FN_VERSION,
        "description": "Apps, routes, calls. A route runs when /r/APP/PATH is called.",
    },
    "servers": [{"url": "/v1"}],
    "paths": {
        "/apps": _path(
            "",
            get=_operation("Apps", "List apps", "AppsWrapper", query="cursor per_page"),
            post=_operation("Apps", "Create an app", "AppWrapper", body="AppWrapper"),
        ),
        "/apps/{app}": _path(
            "app",
            get=_operation("Apps", "Get an app", "AppWrapper"),
            patch=_operation("Apps", "Change an app", "AppWrapper", body="AppWrapper"),
            delete=_operation("Apps", "Delete an app with its routes and calls", "Message"),
        ),
        "/apps/{app}/routes": _path(
            "app",
            get=_operation("Routes", "List an app's routes", "RoutesWrapper", query="image cursor per_page"),
            post=_operation("Routes", "Create a route", "RouteWrapper", body="RouteWrapper"),
        ),
        "/apps/{app}/routes/{route}": _path(
            "app route",
            get=_operation("Routes", "Get a route", "RouteWrapper"),
            put=_operation("Routes", "Create or change a route", "RouteWrapper", body="RouteWrapper"),
            patch=_operation("Routes", "Change a route", "RouteWrapper", body="RouteWrapper"),
            delete=_operation("Routes", "Delete a route", "Message"),
        ),
        "/apps/{app}/calls": _path(
            "app",
            get=_operation(
                "Call", "List an app's calls", "CallsWrapper", query="path cursor per_page from_time to_time"
            ),
        ),
        "/apps/{app}/calls/{call}": _path("app call", get=_operation("Call", "Get a call", "CallWrapper")),
        "/apps/{app}/calls/{call}/log": _path(
            "app call", get=_operation("Log", "Get a call's log", "LogWrapper", text=True)
        ),
    },
    "components": {"schemas": _SCHEMAS},
}


def _page() -> str:
    rows = [
        f"<tr><td><code>{method.upper()}</code><td><code>/v1{path}</code><td>{operation['summary']}"
        for path, operations in DESCRIPTION["paths"].items()
        for method, operation in operations.items()
        if method != "parameters"
    ]
    style = "body{font:16px sans-serif;margin:2em auto;max-width:50em}td{padding:.3em 1em .3em 0}"
    return (
        f"<!doctype html><title>Hearth API</title><style>{style}</style><h1>Hearth API</h1>"
        '<p>The whole description: <a href="/v1/openapi.json">/v1/openapi.json</a>.<table>' + "".join(rows) + "</table>"
    )


PAGE: Final = _page()
