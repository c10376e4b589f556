"""The published description of the API (API specification 11), and the page that shows it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from hearth import FN_VERSION
from hearth.models.app import MAX_NAME_BYTES
from hearth.models.call import STAT_NAMES, STATUSES
from hearth.models.call_auth import (
    CALL_AUTHS,
    DEFAULT_CALL_AUTHS,
    DEFAULT_TOLERANCE_S,
    INHERITED,
    MAX_TOLERANCE_S,
    STYLES,
)
from hearth.models.call_result import MAX_TTL_S
from hearth.models.delivery import MAX_CALLS, MAX_DELAY_S
from hearth.models.destination import MAX_LENGTH
from hearth.models.errors import DEFAULT_MAX_MEMORY_MIB, MAX_SECRET_BYTES, MAX_SECRET_NAME_LENGTH
from hearth.models.function import MAX_CONCURRENCY
from hearth.models.instances import MAX_INSTANCES
from hearth.models.principal import TOKEN_ROLES
from hearth.models.quotas import MAX_QUOTA, MAX_WEIGHT, QUOTAS
from hearth.models.retry import FAILURES, JITTERS, MAX_ATTEMPTS, MAX_BACKOFF_S, MAX_FACTOR
from hearth.models.route import FORMATS, MAX_ASYNC_TIMEOUT_S, MAX_IDLE_TIMEOUT_S, TYPES
from hearth.models.schedule import ALLOW, IF_MISSED, MAX_PAYLOAD_BYTES, ONCE, OVERLAPS, SHOWN
from hearth.models.schedule import MAX_NAME as MAX_SCHEDULE_NAME
from hearth.models.secret import ENV, WAYS
from hearth.models.token import MAX_APPS, MAX_NAME_LENGTH

_STRING: Final[dict[str, Any]] = {"type": "string"}
_MAP: Final = {"type": "object", "additionalProperties": _STRING}
_LISTS: Final = {"type": "object", "additionalProperties": {"type": "array", "items": _STRING}}
_ID: Final = {"type": "string", "readOnly": True, "description": "another one if the app is deleted and created again"}
_TIME: Final = {"type": "string", "format": "date-time", "readOnly": True}
_INTEGER: Final = {"type": "integer", "format": "int64"}
_APP_NAME: Final = {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,30}$"}
#: Apps that API v2 creates may have longer names, of letters and numbers of any script.
_ANY_APP_NAME: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES}
_SECRET_NAME: Final = {"type": "string", "pattern": f"^[A-Za-z_][0-9A-Za-z_]{{0,{MAX_SECRET_NAME_LENGTH - 1}}}$"}
_SECRET_NAMES: Final = {
    "type": "array",
    "items": _SECRET_NAME,
    "description": "names of secrets of the app that functions get",
}
_QUOTA: Final = {**_INTEGER, "minimum": 0, "maximum": MAX_QUOTA}
_QUOTAS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {**dict.fromkeys(QUOTAS, _QUOTA), "weight": {**_INTEGER, "minimum": 1, "maximum": MAX_WEIGHT}},
    "additionalProperties": False,
    "description": "limits of the app; those that are absent have the defaults of the node, 0 means no limit",
}
_QUOTA_CHANGES: Final = {
    **_QUOTAS,
    "properties": {name: {**schema, "nullable": True} for name, schema in _QUOTAS["properties"].items()},
    "description": "quotas to change; null removes one. For administrators that reach all apps",
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(optional: str = "", **properties: Any) -> dict[str, Any]:
    """Describe what the server answers: exactly these properties, all of them but the optional ones."""
    required = [name for name in properties if name not in optional.split()]
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema  # an empty list is not valid


def _body(key: str, required: str, **properties: Any) -> dict[str, Any]:
    """Describe what the server reads: most properties may be left out, unknown ones are ignored."""
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


_ROLE: Final = {"type": "string", "enum": [role.value for role in TOKEN_ROLES]}
_APP_NAMES: Final = {"type": "array", "items": _ANY_APP_NAME, "maxItems": MAX_APPS, "description": "empty: all apps"}
_OPTIONAL_TIME: Final = {**_TIME, "nullable": True}
_TOKEN: Final[dict[str, Any]] = {
    "id": _STRING,
    "name": _STRING,
    "role": _ROLE,
    "apps": _APP_NAMES,
    "created_at": _TIME,
    "expires_at": _OPTIONAL_TIME,
}

_APP_AUTH: Final = {
    "type": "string",
    "enum": [*DEFAULT_CALL_AUTHS, INHERITED],
    "description": "the proof that routes ask of callers unless they say otherwise; default: as the node says",
}
_SIGNATURE: Final = {
    "type": "object",
    "description": "the signature that callers show if auth is signed; replaced whole",
    "required": ["style", "secret"],
    "properties": {
        "style": {"type": "string", "enum": list(STYLES)},
        "secret": {**_SECRET_NAME, "description": "name of the secret of the app that is the key"},
        "header": {"type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$", "description": "default: that of the style"},
        "tolerance": {
            "type": "integer",
            "format": "int32",
            "default": DEFAULT_TOLERANCE_S,
            "minimum": 1,
            "maximum": MAX_TOLERANCE_S,
            "description": "seconds by which the time of a signature may differ",
        },
    },
}

_SCHEDULE: Final[dict[str, Any]] = {
    "name": {"type": "string", "pattern": f"^[0-9A-Za-z][0-9A-Za-z._-]{{0,{MAX_SCHEDULE_NAME - 1}}}$"},
    "route": {"type": "string", "description": "the path of a route of the app; or fn_id"},
    "fn_id": {"type": "string", "description": "the id of a fn of the app; or route"},
    "cron": {"type": "string", "description": "five fields; or every, or at"},
    "timezone": {"type": "string", "description": "of cron: a name such as Europe/Berlin; default: UTC"},
    "every": {"type": "string", "description": "a duration such as 90s, 15m or 1d"},
    "at": {"type": "string", "description": "one RFC 3339 time"},
    "payload": {"type": "string", "description": f"the body of each call, at most {MAX_PAYLOAD_BYTES} bytes"},
    "headers": {**_LISTS, "description": "the headers of each call"},
    "enabled": {"type": "boolean", "default": True},
    "if_missed": {"type": "string", "enum": list(IF_MISSED), "default": ONCE},
    "overlap": {"type": "string", "enum": list(OVERLAPS), "default": ALLOW},
}

_DELIVERY: Final[dict[str, Any]] = {
    "result_ttl_s": {
        "type": "integer",
        "format": "int32",
        "minimum": 1,
        "maximum": MAX_TTL_S,
        "nullable": True,
        "description": "seconds for which the result of an async call is kept; null: as the node says",
    },
    "max_queued": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_CALLS,
        "nullable": True,
        "description": "async calls that may be queued; further ones are answered 429; null: any number",
    },
    "max_concurrent_async": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_CALLS,
        "nullable": True,
        "description": "async calls that run at one time on one node; null: any number",
    },
    "dead_letters": {
        "type": "boolean",
        "nullable": True,
        "description": "keep async calls that fail with their payloads; null: those of a route with retry",
    },
    "expires_s": {
        "type": "integer",
        "format": "int32",
        "minimum": 1,
        "maximum": MAX_DELAY_S,
        "nullable": True,
        "description": "seconds in which an async call has to start, else it ends as expired; null: any",
    },
    "idempotency_ttl_s": {
        "type": "integer",
        "format": "int32",
        "minimum": 1,
        "maximum": MAX_TTL_S,
        "nullable": True,
        "description": "seconds for which the answer to a call with an Idempotency-Key is kept; null: 86400",
    },
    "on_success": {
        "type": "string",
        "nullable": True,
        "maxLength": MAX_LENGTH,
        "description": "URL, or APP/ROUTE, to which the record of an async call that has succeeded is sent",
    },
    "on_failure": {
        "type": "string",
        "nullable": True,
        "maxLength": MAX_LENGTH,
        "description": "the same for a call that has ended in another way",
    },
    "retry": {
        "type": "object",
        "nullable": True,
        "description": "when an async call that fails is run again; replaced whole; null: never",
        "properties": {
            "attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS, "default": 1},
            "backoff_s": {"type": "number", "minimum": 0, "maximum": MAX_BACKOFF_S, "default": 1},
            "factor": {"type": "number", "minimum": 1, "maximum": MAX_FACTOR, "default": 2},
            "max_s": {"type": "number", "minimum": 0, "maximum": MAX_BACKOFF_S, "default": 300},
            "jitter": {"type": "string", "enum": list(JITTERS), "default": "full"},
            "on": {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(FAILURES)}},
        },
    },
}

_INSTANCES: Final[dict[str, Any]] = {
    "min_instances": {
        "type": "integer",
        "minimum": 0,
        "maximum": MAX_INSTANCES,
        "nullable": True,
        "description": "containers that each node starts in advance and keeps ready; null: none",
    },
    "max_instances": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_INSTANCES,
        "nullable": True,
        "description": "containers that each node may have; null: any number",
    },
}

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
    "secrets": _SECRET_NAMES,
    "secrets_as": {"type": "string", "enum": list(WAYS), "default": ENV},
    "auth": {
        "type": "string",
        "enum": [*CALL_AUTHS, INHERITED],
        "description": "the proof that callers show; default: as the app says",
    },
    "signature": _SIGNATURE,
    "concurrency": {
        "type": "integer",
        "default": 1,
        "minimum": 0,
        "maximum": MAX_CONCURRENCY,
        "description": "calls that one container runs at once; above 1 for http-stream only",
    },
    **_INSTANCES,
    **_DELIVERY,
}

#: A past attempt of a call.
ATTEMPT: Final[dict[str, Any]] = {
    "attempt": {"type": "integer", "minimum": 1},
    "node": _STRING,
    "started_at": _TIME,
    "completed_at": _TIME,
    "status": {"type": "string", "enum": list(STATUSES)},
    "error": _STRING,
}

#: Query parameters that choose dead letters.
_SOME: Final = "route from cursor"
#: Fields of calls that most of them do not have.
_NOT_OF_EVERY_CALL: Final = "stats error response_status attempt attempts origin dead"
_CALL: Final[dict[str, Any]] = {
    "id": _STRING,
    "status": {"type": "string", "enum": list(STATUSES)},
    "app_name": _ANY_APP_NAME,
    "path": _STRING,
    "created_at": _TIME,
    "started_at": _TIME,
    "completed_at": _TIME,
    "stats": {"type": "array", "items": _ref("Stat"), "maxItems": 240},
    "error": _STRING,
    "response_status": {
        "type": "integer",
        "format": "int32",
        "description": "HTTP status of the call's answer; absent while there is none",
    },
    "attempt": {"type": "integer", "minimum": 1, "description": "absent without a policy of retries"},
    "attempts": {"type": "array", "items": _ref("Attempt"), "maxItems": MAX_ATTEMPTS},
    "origin": {"type": "string", "description": "what made a call that no client has sent: redrive ID, schedule NAME"},
    "dead": {"type": "boolean", "description": "it joined the dead letters of its app"},
}
_DIGEST: Final = {"type": "string", "description": "what the image stands for; absent until it is known"}
_SCHEMAS: Final[dict[str, Any]] = {
    "App": _object(
        "config id secrets auth quotas syslog_url",
        name=_ANY_APP_NAME,
        config=_MAP,
        created_at=_TIME,
        updated_at=_TIME,
        id=_ID,
        secrets=_SECRET_NAMES,
        auth=_APP_AUTH,
        quotas=_QUOTAS,
        syslog_url={**_STRING, "description": "set through API v2"},
    ),
    "Route": _object(
        f"config headers secrets secrets_as auth signature concurrency digest {' '.join((*_INSTANCES, *_DELIVERY))}",
        app_name=_ANY_APP_NAME,
        **_SETTABLE,
        digest=_DIGEST,
        created_at=_TIME,
        updated_at=_TIME,
    ),
    "Stat": _object(
        timestamp=_TIME,
        metrics={
            "type": "object",
            "properties": dict.fromkeys(STAT_NAMES, _INTEGER),
            "additionalProperties": _INTEGER,  # nodes of another version may store more
        },
    ),
    "Call": _object(_NOT_OF_EVERY_CALL, **_CALL),
    "DeadLetter": _object(
        f"{_NOT_OF_EVERY_CALL} unreadable",
        **_CALL,
        payload_bytes=_INTEGER,
        headers={"type": "object", "additionalProperties": {"type": "array", "items": _STRING}},
        unreadable={"type": "boolean", "description": "its message could not be read, and is its payload"},
    ),
    "Schedule": _object(
        "route fn_id cron timezone every at payload headers last_due last_call",
        **_SCHEDULE,
        id=_ID,
        created_at=_TIME,
        updated_at=_TIME,
        next={"type": "array", "items": _TIME, "maxItems": SHOWN, "description": "the next firing times"},
        last_due=_TIME,
        last_call={"type": "string", "description": "the id of the newest call"},
    ),
    "ScheduleWrapper": _wrapper("schedule", "Schedule"),
    "SchedulesWrapper": _object(message=_STRING, schedules={"type": "array", "items": _ref("Schedule")}),
    "ScheduleBody": _body("schedule", "name", **_SCHEDULE),
    "ScheduleChange": _body("schedule", "", **{name: schema for name, schema in _SCHEDULE.items() if name != "name"}),
    "Accepted": _object(call_id=_STRING),
    "Attempt": _object("node started_at completed_at status error", **ATTEMPT),
    "Unfinished": _object(call_id=_STRING, status={"type": "string", "enum": list(STATUSES)}),
    "Log": _object(call_id=_STRING, log=_STRING, app_name=_ANY_APP_NAME),
    "Token": _object(**_TOKEN, last_used_at=_OPTIONAL_TIME),
    "NewToken": _object(**_TOKEN, value={"type": "string", "description": "shown only here"}),
    "AuditEvent": _object(
        id=_STRING,
        created_at=_TIME,
        principal={"type": "string", "description": "deployer:ci, a token, or deployer@oidc:me, a subject"},
        token_id=_STRING,
        action=_STRING,
        app=_STRING,
        resource=_STRING,
        status={"type": "integer", "format": "int32"},
        address=_STRING,
    ),
    "Secret": _object(name=_SECRET_NAME, updated_at=_TIME, version=_INTEGER),
    "Registry": _object(registry=_STRING, updated_at=_TIME, version=_INTEGER),
    "Version": _object(version=_STRING),
    "ErrorBody": _object("fields", message=_STRING, fields=_STRING),
    "Error": _object(error=_ref("ErrorBody")),
    "AppWrapper": _wrapper("app", "App"),
    "AppsWrapper": _list("apps", "App"),
    "RouteWrapper": _wrapper("route", "Route"),
    "RoutesWrapper": _list("routes", "Route"),
    "CallWrapper": _wrapper("call", "Call"),
    "CallsWrapper": _list("calls", "Call"),
    "DeadLetterWrapper": _wrapper("call", "DeadLetter"),
    "DeadLettersWrapper": _list("calls", "DeadLetter"),
    "NewCall": _object(call_id=_STRING),
    "Redriven": _object(redriven=_INTEGER, skipped=_INTEGER, next_cursor=_STRING),
    "Purged": _object(message=_STRING, removed=_INTEGER, next_cursor=_STRING),
    "LogWrapper": _wrapper("log", "Log"),
    "SecretWrapper": _wrapper("secret", "Secret"),
    "SecretsWrapper": _object(message=_STRING, secrets={"type": "array", "items": _ref("Secret")}),
    "RegistryWrapper": _wrapper("registry", "Registry"),
    "RegistriesWrapper": _object(message=_STRING, registries={"type": "array", "items": _ref("Registry")}),
    "Message": _object(message=_STRING),
    "TokensWrapper": _list("tokens", "Token"),
    "AuditWrapper": _list("events", "AuditEvent"),
    "Node": _object(
        id=_STRING,
        type=_STRING,
        host=_STRING,
        port=_INTEGER,
        version=_STRING,
        driver=_STRING,
        state=_STRING,
        started_at=_STRING,
        last_seen=_STRING,
        memory_mib=_INTEGER,
        used_mib=_INTEGER,
        cpu_milli=_INTEGER,
        running=_INTEGER,
        containers=_INTEGER,
        functions={"type": "array", "items": _ref("FunctionContainers")},
    ),
    "FunctionContainers": _object(
        app=_STRING, function=_STRING, wait=_INTEGER, start=_INTEGER, idle=_INTEGER, busy=_INTEGER
    ),
    "NodeWrapper": _wrapper("node", "Node"),
    "NodesWrapper": _object(message=_STRING, nodes={"type": "array", "items": _ref("Node")}),
    "VersionsWrapper": _object(message=_STRING, versions={"type": "array", "items": _ref("FunctionVersion")}),
    "FunctionVersion": _object(
        function=_STRING,
        image=_STRING,
        digest=_STRING,
        config_hash=_STRING,
        principal=_STRING,
        created_at=_TIME,
    ),
    "NewTokenWrapper": _wrapper("token", "NewToken"),
    "TokenBody": _body(
        "token",
        "name role",
        name={"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH},
        role=_ROLE,
        apps=_APP_NAMES,
        expires_at={"type": "string", "format": "date-time", "nullable": True},
    ),
    "AppBody": _body(
        "app", "name", name=_APP_NAME, config=_MAP, secrets=_SECRET_NAMES, auth=_APP_AUTH, quotas=_QUOTA_CHANGES
    ),
    "AppChange": _body("app", "", config=_MAP, secrets=_SECRET_NAMES, auth=_APP_AUTH, quotas=_QUOTA_CHANGES),
    "RouteBody": _body("route", "path image", **_SETTABLE),
    "RouteChange": _body("route", "", **{name: schema for name, schema in _SETTABLE.items() if name != "path"}),
    "RegistryBody": {
        "type": "object",
        "properties": {
            "username": {"type": "string", "minLength": 1, "maxLength": 255, "writeOnly": True},
            "password": {"type": "string", "minLength": 1, "maxLength": 16384, "writeOnly": True},
        },
        "required": ["username", "password"],
    },
    "SecretBody": {
        "type": "object",
        "properties": {
            "value": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_SECRET_BYTES,
                "writeOnly": True,
                "description": f"at most {MAX_SECRET_BYTES} bytes of UTF-8, without NUL",
            }
        },
        "required": ["value"],
    },
}


def _in(place: str, name: str) -> dict[str, Any]:
    schema = {"type": "integer"} if name in ("per_page", "from_time", "to_time", "from") else _STRING
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _operation(
    tag: str,
    summary: str,
    result: str,
    errors: str,
    *,
    body: str = "",
    query: str = "",
    text: bool = False,
    status: str = "200",
) -> Any:
    content: dict[str, Any] = {"application/json": {"schema": _ref(result)}}
    if text:
        content["text/plain"] = {"schema": _STRING}
    responses = {code: _error(HTTPStatus(int(code)).phrase) for code in errors.split()}
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "responses": {status: {"description": "Done", "content": content}, **responses, "default": _error("Error")},
    }
    if query:
        operation["parameters"] = [_in("query", name) for name in query.split()]
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _accepted(operation: dict[str, Any]) -> dict[str, Any]:
    """Describe an operation that is answered 202."""
    responses = dict(operation["responses"])
    return {**operation, "responses": {"202": responses.pop("200"), **responses}}


def _payload(tag: str, summary: str) -> dict[str, Any]:
    """Describe bytes of a caller."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    responses = {"200": {"description": "Done", "content": content}, "404": _error("Not Found")}
    return {"tags": [tag], "summary": summary, "responses": {**responses, "default": _error("Error")}}


def _result(tag: str, summary: str) -> dict[str, Any]:
    """Describe the answer of a function, of whatever type and status; 202 while there is none."""
    return {
        "tags": [tag],
        "summary": summary,
        "parameters": [
            {**_in("query", "wait"), "schema": {"type": "number", "minimum": 0, "maximum": 60}},
            _in("query", "token"),
        ],
        "responses": {
            "200": {"description": "The answer of the function", "content": {"*/*": {"schema": {}}}},
            "202": {
                "description": "The call has not ended",
                "headers": {name: {"schema": _STRING} for name in ("Retry-After", "Fn-Call-Status")},
                "content": {"application/json": {"schema": _ref("Unfinished")}},
            },
            "default": {"description": "Error, or another status of the function", "content": {"*/*": {"schema": {}}}},
        },
    }


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref("Error")}}}


def _path(names: str, **operations: Any) -> dict[str, Any]:
    return {"parameters": [_in("path", name) for name in names.split()], **operations}


DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.0.3",
    "info": {
        "title": "Hearth",
        "version": FN_VERSION,
        "description": "Apps, routes, secrets, calls. A route runs when /r/APP/PATH is called.",
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
        "/apps/{app}/versions": _path(
            "app",
            get=_operation(
                "Routes",
                "List the versions of a route, or of a fn by its id",
                "VersionsWrapper",
                "404",
                query="function",
            ),
        ),
        "/apps/{app}/secrets": _path(
            "app",
            get=_operation("Secrets", "List an app's secrets: names, never values", "SecretsWrapper", "404"),
        ),
        "/apps/{app}/secrets/{secret}": _path(
            "app secret",
            put=_operation(
                "Secrets", "Store or change a secret", "SecretWrapper", "400 404 409 413 503", body="SecretBody"
            ),
            delete=_operation("Secrets", "Delete a secret", "Message", "404"),
        ),
        "/apps/{app}/registries": _path(
            "app",
            get=_operation("Secrets", "List an app's logins at registries", "RegistriesWrapper", "404"),
        ),
        "/apps/{app}/registries/{registry}": _path(
            "app registry",
            put=_operation(
                "Secrets", "Store or change a login", "RegistryWrapper", "400 404 409 503", body="RegistryBody"
            ),
            delete=_operation("Secrets", "Delete a login", "Message", "400 404"),
        ),
        "/apps/{app}/schedules": _path(
            "app",
            get=_operation("Schedules", "List an app's schedules", "SchedulesWrapper", "404"),
            post=_operation("Schedules", "Create a schedule", "ScheduleWrapper", "400 404 409", body="ScheduleBody"),
        ),
        "/apps/{app}/schedules/{schedule}": _path(
            "app schedule",
            get=_operation("Schedules", "Get a schedule", "ScheduleWrapper", "404"),
            put=_operation(
                "Schedules", "Create or replace a schedule", "ScheduleWrapper", "400 404 409", body="ScheduleChange"
            ),
            delete=_operation("Schedules", "Delete a schedule", "Message", "404"),
        ),
        "/apps/{app}/schedules/{schedule}/run": _path(
            "app schedule",
            post=_operation(
                "Schedules", "Call the function of a schedule now", "Accepted", "400 404 429", status="202"
            ),
        ),
        "/apps/{app}/calls": _path(
            "app",
            get=_operation(
                "Call",
                "List an app's calls",
                "CallsWrapper",
                "400 404",
                query="path status cursor per_page from_time to_time",
            ),
        ),
        "/apps/{app}/calls/{call}": _path("app call", get=_operation("Call", "Get a call", "CallWrapper", "404")),
        "/apps/{app}/calls/{call}/log": _path(
            "app call", get=_operation("Log", "Get a call's log", "LogWrapper", "404 406", text=True)
        ),
        "/apps/{app}/calls/{call}/cancel": _path(
            "app call", post=_operation("Call", "End an accepted call that has not ended", "CallWrapper", "404 409")
        ),
        "/apps/{app}/dead-letters": _path(
            "app",
            get=_operation(
                "Dead letters",
                "List calls that failed",
                "DeadLettersWrapper",
                "404",
                query="route from cursor per_page",
            ),
            delete=_operation("Dead letters", "Remove up to 1000 of them", "Purged", "404", query=_SOME),
        ),
        "/apps/{app}/dead-letters/redrive": _path(
            "app",
            post=_accepted(
                _operation("Dead letters", "Run up to 1000 of them again", "Redriven", "404 429", query=_SOME)
            ),
        ),
        "/apps/{app}/dead-letters/{call}": _path(
            "app call",
            get=_operation("Dead letters", "Get a call that failed", "DeadLetterWrapper", "404"),
            delete=_operation("Dead letters", "Remove it", "Message", "404"),
        ),
        "/apps/{app}/dead-letters/{call}/payload": _path("app call", get=_payload("Dead letters", "Get its payload")),
        "/apps/{app}/dead-letters/{call}/redrive": _path(
            "app call",
            post=_accepted(_operation("Dead letters", "Run it again as a new call", "NewCall", "404 409 429")),
        ),
        "/apps/{app}/calls/{call}/result": _path(
            "app call", get=_result("Call", "Get what a sync caller would have been answered")
        ),
        "/nodes": _path("", get=_operation("Nodes", "List the nodes of a fleet", "NodesWrapper", "")),
        "/nodes/{node}/drain": _path("node", post=_operation("Nodes", "Let a node drain", "NodeWrapper", "404")),
        "/audit": _path(
            "",
            get=_operation(
                "Audit", "List changes and refused requests", "AuditWrapper", "", query="cursor per_page app principal"
            ),
        ),
        "/tokens": _path(
            "",
            get=_operation("Tokens", "List tokens", "TokensWrapper", "", query="cursor per_page"),
            post=_operation("Tokens", "Create a token", "NewTokenWrapper", "400", body="TokenBody"),
        ),
        "/tokens/{token}": _path("token", delete=_operation("Tokens", "Revoke a token", "Message", "404")),
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
        '<p>The whole description: <a href="/v1/openapi.json">/v1/openapi.json</a>. API v2, of fns and '
        'triggers: <a href="/v2/openapi.json">/v2/openapi.json</a>.<table>' + "".join(rows) + "</table>"
    )


PAGE: Final = _page()
