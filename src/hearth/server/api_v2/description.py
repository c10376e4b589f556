"""The published description of API v2."""

from __future__ import annotations

from typing import Any, Final

from hearth import FN_VERSION
from hearth.models.annotations import MAX_KEY_BYTES, MAX_KEYS
from hearth.models.app import MAX_NAME_BYTES, SHAPES
from hearth.models.call import STATUSES
from hearth.models.call_auth import DEFAULT_CALL_AUTHS
from hearth.models.errors import DEFAULT_MAX_MEMORY_MIB
from hearth.models.fn import DEFAULT_IDLE_TIMEOUT_S, DEFAULT_TIMEOUT_S, MAX_IDLE_TIMEOUT_S, MAX_TIMEOUT_S
from hearth.models.fn_errors import MAX_SOURCE_LENGTH
from hearth.models.function import DEFAULT_MEMORY_MIB
from hearth.models.quotas import QUOTAS
from hearth.models.trigger import HTTP
from hearth.server.description import ATTEMPT

_STRING: Final[dict[str, Any]] = {"type": "string"}
_ID: Final = {"type": "string", "readOnly": True}
_TIME: Final = {"type": "string", "format": "date-time", "readOnly": True}
_MAP: Final = {"type": "object", "additionalProperties": _STRING}
_ANNOTATIONS: Final = {
    "type": "object",
    "maxProperties": MAX_KEYS,
    "description": f"any JSON values but null, by keys of at most {MAX_KEY_BYTES} visible ASCII characters",
    "additionalProperties": {"nullable": True},
}
_WORD: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES}
_SHAPE: Final = {"type": "string", "enum": [*SHAPES, ""], "description": "machines that images are built for"}
_INT64: Final = {"type": "integer", "format": "int64"}


def _integer(default: int, maximum: int, description: str) -> dict[str, Any]:
    limits = {"default": default, "minimum": 0, "maximum": maximum}
    return {"type": "integer", "format": "int32", **limits, "description": f"{description}; 0: the default"}


_APP: Final[dict[str, Any]] = {
    "name": {**_WORD, "description": "letters and numbers of any script, _ and -; never changes"},
    "config": _MAP,
    "annotations": _ANNOTATIONS,
    "syslog_url": {"type": "string", "nullable": True, "description": "empty: removes it"},
    "shape": _SHAPE,
}
_FN: Final[dict[str, Any]] = {
    "name": {**_WORD, "description": "characters that need no escape in a path; never changes"},
    "app_id": _STRING,
    "image": _STRING,
    "memory": _integer(DEFAULT_MEMORY_MIB, DEFAULT_MAX_MEMORY_MIB, "MiB"),
    "timeout": _integer(DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, "seconds"),
    "idle_timeout": _integer(DEFAULT_IDLE_TIMEOUT_S, MAX_IDLE_TIMEOUT_S, "seconds"),
    "config": _MAP,
    "annotations": _ANNOTATIONS,
}
_TRIGGER: Final[dict[str, Any]] = {
    "name": {**_WORD, "description": "letters and numbers of any script, _ and -"},
    "app_id": _STRING,
    "fn_id": _STRING,
    "type": {"type": "string", "enum": [HTTP]},
    "source": {"type": "string", "pattern": "^/", "maxLength": MAX_SOURCE_LENGTH},
    "annotations": _ANNOTATIONS,
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _shown(optional: str, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Describe what the server answers: exactly these properties, all of them but the optional ones."""
    properties = {"id": _ID, **fields, **more, "created_at": _TIME, "updated_at": _TIME}
    required = [name for name in properties if name not in optional.split()]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _page(item: str) -> dict[str, Any]:
    properties = {"items": {"type": "array", "items": _ref(item)}, "next_cursor": _STRING}
    return {"type": "object", "properties": properties, "required": ["items"], "additionalProperties": False}


def _body(required: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Describe what the server reads: unknown properties are ignored."""
    return {"type": "object", "properties": fields, "required": required.split()}


def _change(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


_APP_SHOWN: Final = {
    "secrets": {"type": "array", "items": _STRING, "readOnly": True, "description": "set through API v1"},
    "auth": {"type": "string", "enum": list(DEFAULT_CALL_AUTHS), "readOnly": True, "description": "set through API v1"},
    "quotas": {
        "type": "object",
        "properties": dict.fromkeys(QUOTAS, _INT64),
        "additionalProperties": False,
        "readOnly": True,
        "description": "set through API v1",
    },
}
_DIGEST: Final = {
    "type": "string",
    "readOnly": True,
    "description": "what the image stands for; absent until it is known",
}
_SCHEMAS: Final[dict[str, Any]] = {
    "App": _shown("config annotations syslog_url shape secrets auth quotas", _APP, **_APP_SHOWN),
    "Fn": _shown("shape digest", _FN, shape=_SHAPE, digest=_DIGEST),
    "Trigger": _shown("", _TRIGGER),
    "Call": {
        "type": "object",
        "properties": {
            "id": _STRING,
            "status": {"type": "string", "enum": list(STATUSES)},
            "app_id": _STRING,
            "app_name": _STRING,
            "fn_id": _STRING,
            "trigger_id": {**_STRING, "description": "absent for a call by the id of the fn"},
            "created_at": _TIME,
            "started_at": _TIME,
            "completed_at": _TIME,
            "execution_duration": {**_INT64, "description": "nanoseconds"},
            "stats": {"type": "array", "items": {"type": "object"}, "maxItems": 240},
            "error": _STRING,
            "attempt": {"type": "integer", "minimum": 1, "description": "absent without a policy of retries"},
            "attempts": {"type": "array", "items": {"type": "object", "properties": ATTEMPT}},
            "origin": {**_STRING, "description": "what made a call that no client has sent: redrive ID, schedule NAME"},
            "dead": {"type": "boolean", "description": "it joined the dead letters of its app"},
        },
        "additionalProperties": False,
    },
    "Log": {
        "type": "object",
        "properties": {"call_id": _STRING, "log": _STRING},
        "required": ["call_id", "log"],
        "additionalProperties": False,
    },
    "Unfinished": {
        "type": "object",
        "properties": {"call_id": _STRING, "status": {"type": "string", "enum": list(STATUSES)}},
        "required": ["call_id", "status"],
        "additionalProperties": False,
    },
    "Apps": _page("App"),
    "Fns": _page("Fn"),
    "Triggers": _page("Trigger"),
    "Calls": _page("Call"),
    "NewApp": _body("name", _APP),
    "NewFn": _body("name app_id image", _FN),
    "NewTrigger": _body("name app_id fn_id type source", _TRIGGER),
    "AppChange": _change({name: _APP[name] for name in ("config", "annotations", "syslog_url")}),
    "FnChange": _change({name: field for name, field in _FN.items() if name not in ("name", "app_id")}),
    "TriggerChange": _change({name: _TRIGGER[name] for name in ("name", "fn_id", "source", "annotations")}),
    "Error": {
        "type": "object",
        "properties": {"message": _STRING},
        "required": ["message"],
        "additionalProperties": False,
    },
}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _operation(
    tag: str, summary: str, result: str = "", *, body: str = "", query: str = "", text: bool = False
) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done"}
    if result:
        done["content"] = _json(result) | ({"text/plain": {"schema": _STRING}} if text else {})
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200" if result else "204": done,
            "default": {"description": "Error", "content": _json("Error")},
        },
    }
    if query:
        operation["parameters"] = [_in("query", name) for name in query.split()]
    if body:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _in(place: str, name: str) -> dict[str, Any]:
    is_required = place == "path" or name.endswith("!")
    schema = {"type": "integer"} if name in ("per_page", "from_time", "to_time") else _STRING
    return {"name": name.removesuffix("!"), "in": place, "required": is_required, "schema": schema}


def _path(names: str, **operations: Any) -> dict[str, Any]:
    return {"parameters": [_in("path", name) for name in names.split()], **operations}


def _items(tag: str, item: str, query: str) -> dict[str, dict[str, Any]]:
    """Describe the list and the single ones of a kind."""
    many, one = f"/{tag.lower()}", item.lower()
    name = f"{one}_id"
    return {
        many: _path(
            "",
            get=_operation(tag, f"List {one}s", tag, query=f"{query} cursor per_page"),
            post=_operation(tag, f"Create a {one}", item, body=f"New{item}"),
        ),
        f"{many}/{{{name}}}": _path(
            name,
            get=_operation(tag, f"Get a {one}", item),
            put=_operation(tag, f"Change a {one}: config and annotations are merged", item, body=f"{item}Change"),
            delete=_operation(tag, f"Delete a {one} with all that belongs to it"),
        ),
    }


_ANY: Final[dict[str, Any]] = {"*/*": {"schema": {}}}
#: The answer of a function, of whatever type and status; 202 while there is none.
_RESULT: Final[dict[str, Any]] = {
    "tags": ["Calls"],
    "summary": "Get what a caller who waits would have been answered",
    "parameters": [
        {**_in("query", "wait"), "schema": {"type": "number", "minimum": 0, "maximum": 60}},
        _in("query", "token"),
    ],
    "responses": {
        "200": {"description": "The answer of the function", "content": _ANY},
        "202": {
            "description": "The call has not ended",
            "headers": {name: {"schema": _STRING} for name in ("Retry-After", "Fn-Call-Status")},
            "content": _json("Unfinished"),
        },
        "default": {"description": "Error, or another status of the function", "content": _ANY},
    },
}


DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.0.3",
    "info": {
        "title": "Hearth: API v2",
        "version": FN_VERSION,
        "description": "Apps, fns, triggers. A fn runs for POST /invoke/FN_ID, and for /t/APP/SOURCE of its triggers.",
    },
    "servers": [{"url": "/v2"}],
    "paths": {
        **_items("Apps", "App", "name"),
        **_items("Fns", "Fn", "app_id! name"),
        **_items("Triggers", "Trigger", "app_id! fn_id name"),
        "/fns/{fn_id}/calls": _path(
            "fn_id",
            get=_operation(
                "Calls", "List a fn's calls, newest first", "Calls", query="cursor per_page from_time to_time"
            ),
        ),
        "/fns/{fn_id}/calls/{call_id}": _path("fn_id call_id", get=_operation("Calls", "Get a call", "Call")),
        "/fns/{fn_id}/calls/{call_id}/log": _path(
            "fn_id call_id", get=_operation("Calls", "Get a call's log", "Log", text=True)
        ),
        "/fns/{fn_id}/calls/{call_id}/cancel": _path(
            "fn_id call_id", post=_operation("Calls", "End a detached call that has not ended", "Call")
        ),
        "/fns/{fn_id}/calls/{call_id}/result": _path("fn_id call_id", get=_RESULT),
        "/runner/apps/{app_id}/triggerBySource/{type}/{source}": _path(
            "app_id type source",
            get=_operation("Triggers", "Get the trigger at a source, which keeps its first slash", "Trigger"),
        ),
    },
    "components": {"schemas": _SCHEMAS},
}
