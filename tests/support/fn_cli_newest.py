"""The requests of the fn CLI 0.6.63 to API v2, from its source: it finds everything by name, then uses the id."""

from __future__ import annotations

from typing import Any, Final

from tests.support.fn_cli import Sent

_ZERO: Final = {"created_at": "0001-01-01T00:00:00.000Z", "updated_at": "0001-01-01T00:00:00.000Z"}
_READ: Final = {"created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z"}
_FIND_APP: Final = "/v2/apps?name=newest"
_FIND_FN: Final = "/v2/fns?app_id={app}&name=hello"
_FN: Final = {"app_id": "{app}", "name": "hello", "image": "{image}", "memory": 128, "timeout": 30, "idle_timeout": 30}
_PLAIN: Final = (("Content-Type", "text/plain"),)


def _app(**fields: Any) -> dict[str, Any]:
    """An app as the CLI sends back what it has read."""
    return {"id": "{app}", "name": "newest", **_READ, **fields}


NEWEST: Final = (
    Sent("version", "GET", "/version", reads=(("version", "0.3.753"),)),
    Sent(
        "create app newest --config K=V",
        "POST",
        "/v2/apps",
        {"config": {"K": "V"}, "name": "newest", **_ZERO},
        (("name", "newest"), ("config.K", "V")),
        keeps="app",
    ),
    Sent(
        "create app newest (again)",
        "POST",
        "/v2/apps",
        {"name": "newest", **_ZERO},
        (("message", "App already exists"),),
        409,
    ),
    Sent("list apps", "GET", "/v2/apps", reads=(("items.0.name", "newest"), ("next_cursor", None))),
    Sent("inspect app newest", "GET", _FIND_APP, reads=(("items.0.id", "{app}"),)),
    Sent("inspect app none", "GET", "/v2/apps?name=none", reads=(("items", []),)),
    Sent(
        "config app newest L W",
        "PUT",
        "/v2/apps/{app}",
        _app(config={"K": "V", "L": "W"}),
        (("config.K", "V"), ("config.L", "W")),
    ),
    Sent(
        "unset config app newest L",
        "PUT",
        "/v2/apps/{app}",
        _app(config={"L": ""}),
        (("config.K", "V"), ("config.L", None)),
    ),
    Sent(
        "create function newest hello IMAGE",
        "POST",
        "/v2/fns",
        {**_FN, **_ZERO},
        (("name", "hello"), ("app_id", "{app}"), ("memory", 128)),
        keeps="fn",
    ),
    Sent("list functions newest", "GET", "/v2/fns?app_id={app}", reads=(("items.0.id", "{fn}"),)),
    Sent("inspect function newest hello", "GET", _FIND_FN, reads=(("items.0.image", "{image}"),)),
    Sent(
        "update function newest hello --memory 256",
        "PUT",
        "/v2/fns/{fn}",
        {
            **_FN,
            **_READ,
            "id": "{fn}",
            "memory": 256,
            "annotations": {"fnproject.io/fn/invokeEndpoint": "http://localhost/invoke/{fn}"},
        },
        (("memory", 256),),
    ),
    Sent(
        "config function newest hello K V",
        "PUT",
        "/v2/fns/{fn}",
        {**_FN, **_READ, "id": "{fn}", "memory": 256, "config": {"K": "V"}},
        (("config.K", "V"),),
    ),
    Sent(
        "create trigger newest hello t --type http --source /t",
        "POST",
        "/v2/triggers",
        {"app_id": "{app}", "fn_id": "{fn}", "name": "t", "type": "http", "source": "/t", **_ZERO},
        (("name", "t"), ("source", "/t")),
        keeps="trigger",
    ),
    Sent("list triggers newest", "GET", "/v2/triggers?app_id={app}", reads=(("items.0.id", "{trigger}"),)),
    Sent("list triggers newest (of each)", "GET", "/v2/fns/{fn}", reads=(("name", "hello"),)),
    Sent(
        "inspect trigger newest hello t",
        "GET",
        "/v2/triggers?app_id={app}&fn_id={fn}&name=t",
        reads=(("items.0.id", "{trigger}"),),
    ),
    Sent("invoke newest hello", "POST", "/invoke/{fn}", {"tell": True}, headers=_PLAIN),
    Sent("delete trigger newest hello t", "DELETE", "/v2/triggers/{trigger}", status=204),
    Sent("delete function newest hello", "DELETE", "/v2/fns/{fn}", status=204),
    Sent("delete app newest", "DELETE", "/v2/apps/{app}", status=204),
)
