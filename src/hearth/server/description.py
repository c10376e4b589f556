"""The published description of the API (API specification 11), and the page that shows it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from hearth import FN_VERSION
from hearth.models.call import ERROR, QUEUED, RUNNING, STAT_NAMES, SUCCESS, TIMEOUT
from hearth.models.errors import DEFAULT_MAX_MEMORY_MIB
from hearth.models.route import FORMATS, MAX_ASYNC_TIMEOUT_S, MAX_IDLE_TIMEOUT_S, TYPES

_STRING: Final[dict[str, Any]] = {"type": "string"}
_MAP: Final = {"type": "object", "additionalProperties": _STRING}
_LISTS: Final = {"type": "object", "additionalProperties": {"type": "array", "items": _STRING}}
_TIME: Final = {"type": "string", "format": "date-time", "readOnly": True}
_APP_NAME: Final = {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,30}$"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(optional: str = "", **properties: Any) -> dict[str, Any]:
    """What the server answers: exactly these properties, all of them but the optional ones."""
    required = [name for name in properties if name not in optional.split()]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _body(key: str, required: str, **properties: Any) -> dict[str, Any]:
    """What the server reads: most properties may be left out, unknown ones are ignored."""
    inner: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        inner["required"] = required.split()
    return {"type": "object", "properties": {key: inner}, "required": [key]}


def _wrapper(key: str, item: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"message": _STRING, key: _ref(item)}
    return _object(**properties)


def _list(key: str, item: str) -> dict[str, Any]:
    items = {"type": "array", "items": _ref(item)}
    properties: dict[str, Any] = {"message": _STRING, "next_cursor": _STRING, key: items}
    return _object(**properties)


def _seconds(maximum: int) -> dict[str, Any]:
    return {"type": "integer", "format": "int32", "default": 30, "minimum": 0, "maximum": maximum}


_SETTABLE: Final[dict[str, Any]] = {
    "path": {"type": "string", "pattern": "^/[^:?#]*$"},
    "image": _STRING,
    "memory": {"type": "integer", "format": "uint64", "default": 128, "minimum": 0, "maximum": DEFAULT_MAX_MEMORY_MIB},
    "cpus": {"type": "string", "description": "cores or, with an m, thousandths of one; answered as 200m"},
    "headers": _LISTS,
    "type": {"type": "string", "enum": list(TYPES)},
    "format": {"type": "string", "enum": list(FORMATS)},
    "timeout": _seconds(MAX_ASYNC_TIMEOUT_S),
    "idle_timeout": _seconds(MAX_IDLE_TIMEOUT_S),
    "config": _MAP,
}

_SCHEMAS: Final[dict[str, Any]] = {
    "App": _object("config", name=_APP_NAME, config=_MAP, created_at=_TIME, updated_at=_TIME),
    "Route": _object("config headers", app_name=_APP_NAME, **_SETTABLE, created_at=_TIME, updated_at=_TIME),
    "Stat": _object(
        timestamp=_TIME,
        metrics=_object(" ".join(STAT_NAMES), **{name: {"type": "integer", "format": "int64"} for name in STAT_NAMES}),
    ),
    "Call": _object(
        "stats error",
        id=_STRING,
        status={"type": "string", "enum": [QUEUED, RUNNING, SUCCESS, ERROR, TIMEOUT]},
        app_name=_APP_NAME,
        path=_STRING,
        created_at=_TIME,
        started_at=_TIME,
        completed_at=_TIME,
        stats={"type": "array", "items": _ref("Stat"), "maxItems": 240},
        error=_STRING,
    ),
    "Log": _object(call_id=_STRING, log=_STRING, app_name=_APP_NAME),
    "Version": _object(version=_STRING),
    "ErrorBody": _object("fields", message=_STRING, fields=_STRING),
    "Error": _object(error=_ref("ErrorBody")),
    "AppWrapper": _wrapper("app", "App"),
    "AppsWrapper": _list("apps", "App"),
    "RouteWrapper": _wrapper("route", "Route"),
    "RoutesWrapper": _list("routes", "Route"),
    "CallWrapper": _wrapper("call", "Call"),
    "CallsWrapper": _list("calls", "Call"),
    "LogWrapper": _wrapper("log", "Log"),
    "Message": _object(message=_STRING),
    "AppBody": _body("app", "name", name=_APP_NAME, config=_MAP),
    "AppChange": _body("app", "", config=_MAP),
    "RouteBody": _body("route", "path image", **_SETTABLE),
    "RouteChange": _body("route", "", **{name: schema for name, schema in _SETTABLE.items() if name != "path"}),
}


def _in(place: str, name: str) -> dict[str, Any]:
    schema = {"type": "integer"} if name in ("per_page", "from_time", "to_time") else _STRING
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _operation(
    tag: str, summary: str, result: str, errors: str, *, body: str = "", query: str = "", text: bool = False
) -> Any:
    content: dict[str, Any] = {"application/json": {"schema": _ref(result)}}
    if text:
        content["text/plain"] = {"schema": _STRING}
    responses = {code: _error(HTTPStatus(int(code)).phrase) for code in errors.split()}
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "Done", "content": content}, **responses, "default": _error("Error")},
    }
    if query:
        operation["parameters"] = [_in("query", name) for name in query.split()]
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref("Error")}}}


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
            get=_operation("Apps", "List apps", "AppsWrapper", "", query="cursor per_page"),
            post=_operation("Apps", "Create an app", "AppWrapper", "400 409", body="AppBody"),
        ),
        "/apps/{app}": _path(
            "app",
            get=_operation("Apps", "Get an app", "AppWrapper", "404"),
            patch=_operation("Apps", "Change an app", "AppWrapper", "400 404 409", body="AppChange"),
            delete=_operation("Apps", "Delete an app with its routes and calls", "Message", "404"),
        ),
        "/apps/{app}/routes": _path(
            "app",
            get=_operation("Routes", "List an app's routes", "RoutesWrapper", "404", query="image cursor per_page"),
            post=_operation("Routes", "Create a route", "RouteWrapper", "400 409", body="RouteBody"),
        ),
        "/apps/{app}/routes/{route}": _path(
            "app route",
            get=_operation("Routes", "Get a route", "RouteWrapper", "404"),
            put=_operation("Routes", "Create or change a route", "RouteWrapper", "400 409", body="RouteChange"),
            patch=_operation("Routes", "Change a route", "RouteWrapper", "400 404 409", body="RouteChange"),
            delete=_operation("Routes", "Delete a route", "Message", "404"),
        ),
        "/apps/{app}/calls": _path(
            "app",
            get=_operation(
                "Call", "List an app's calls", "CallsWrapper", "400 404", query="path cursor per_page from_time to_time"
            ),
        ),
        "/apps/{app}/calls/{call}": _path("app call", get=_operation("Call", "Get a call", "CallWrapper", "404")),
        "/apps/{app}/calls/{call}/log": _path(
            "app call", get=_operation("Log", "Get a call's log", "LogWrapper", "404 406", text=True)
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
