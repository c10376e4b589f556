"""What the fn CLI 0.4.45 sends, request by request, and the page that says how it fares."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

JSON: Final = {"Accept": "application/json", "Content-Type": "application/json"}
_ZERO: Final = {"created_at": "0001-01-01T00:00:00.000Z", "updated_at": "0001-01-01T00:00:00.000Z"}
_ROUTE: Final = "/v1/apps/fnapp/routes/%2Fhello"
_CONFIG_OFF: Final = {"app": {"config": {"K": ""}}}


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A command of the CLI, the request it sends, and what it reads of the answer: keys with dots, and their values.

    ``{image}`` and ``{call}`` in a path or body stand for the test's own image and the last call. ``keeps`` names the
    id in the answer for those that follow.
    """

    command: str
    method: str
    path: str
    body: Any = None
    reads: tuple[tuple[str, Any], ...] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = tuple(JSON.items())
    keeps: str = ""


def _put(**fields: Any) -> dict[str, Any]:
    return {"route": {"image": "{image}", "path": "/hello", **fields}}


SENT: Final = (
    Sent("version", "GET", "/version", reads=(("version", "0.3.753"),)),
    Sent(
        "apps create fnapp --config K=V",
        "POST",
        "/v1/apps",
        {"app": {"config": {"K": "V"}, "name": "fnapp", **_ZERO}},
        (("app.name", "fnapp"), ("app.config.K", "V")),
    ),
    Sent(
        "apps create fnapp (again)",
        "POST",
        "/v1/apps",
        {"app": {"name": "fnapp", **_ZERO}},
        (("error.message", "App already exists"),),
        409,
    ),
    Sent("apps list", "GET", "/v1/apps", reads=(("next_cursor", ""), ("apps.0.name", "fnapp"))),
    Sent("apps inspect fnapp", "GET", "/v1/apps/fnapp", reads=(("app.name", "fnapp"),)),
    Sent("apps inspect none", "GET", "/v1/apps/none", reads=(("error.message", "App not found"),), status=404),
    Sent(
        "apps config set fnapp K V2",
        "PATCH",
        "/v1/apps/fnapp",
        {"app": {"config": {"K": "V2"}, **_ZERO}},
        (("app.config.K", "V2"),),
    ),
    Sent("apps config unset fnapp K", "PATCH", "/v1/apps/fnapp", _CONFIG_OFF, (("app.config", None),)),
    Sent(
        "apps update fnapp --config A=B",
        "PATCH",
        "/v1/apps/fnapp",
        {"app": {"config": {"A": "B"}}},
        (("app.config.A", "B"),),
    ),
    Sent("apps config list fnapp", "GET", "/v1/apps/fnapp", reads=(("app.config.A", "B"),)),
    Sent(
        "routes create fnapp /hello IMAGE --memory 64 --format json --headers X-A=1;2",
        "POST",
        "/v1/apps/fnapp/routes",
        {**_put(memory=64, format="json", headers={"X-A": ["1", "2"]}, config={"R": "1"}, **_ZERO)},
        (("route.path", "/hello"), ("route.memory", 64), ("route.headers.X-A.1", "2")),
    ),
    Sent("routes list fnapp", "GET", "/v1/apps/fnapp/routes", reads=(("routes.0.path", "/hello"), ("next_cursor", ""))),
    Sent("routes inspect fnapp /hello", "GET", _ROUTE, reads=(("route.format", "json"),)),
    Sent(
        "routes inspect fnapp /none",
        "GET",
        "/v1/apps/fnapp/routes/%2Fnone",
        reads=(("error.message", "Route not found"),),
        status=404,
    ),
    Sent(
        "routes update fnapp /hello --timeout 60",
        "PATCH",
        _ROUTE,
        {"route": {"timeout": 60, **_ZERO}},
        (("route.timeout", 60), ("route.memory", 64)),
    ),
    Sent(
        "routes config set fnapp /hello K V",
        "PATCH",
        _ROUTE,
        {"route": {"config": {"K": "V"}}},
        (("route.config.K", "V"), ("route.config.R", "1")),
    ),
    Sent(
        "routes config unset fnapp /hello K",
        "PATCH",
        _ROUTE,
        {"route": {"config": {"K": ""}}},
        (("route.config.K", None),),
    ),
    Sent("routes config list fnapp /hello", "GET", _ROUTE, reads=(("route.config.R", "1"),)),
    Sent("call fnapp /hello", "GET", "/r/fnapp/hello", headers=(("Content-Type", "application/json"),)),
    Sent(
        "call fnapp /hello (with stdin)",
        "POST",
        "/r/fnapp/hello",
        {"echo": '{"got": "it"}'},
        (("got", "it"),),
        headers=(("Content-Type", "application/json"),),
    ),
    Sent(
        "test --remote fnapp",
        "POST",
        "/r/fnapp/hello",
        {"body": {"name": "Ada"}},
        (("body.name", "Ada"),),
        headers=(("Content-Type", "application/json"),),
    ),
    Sent(
        "calls list fnapp --path /hello --from-time ...",
        "GET",
        "/v1/apps/fnapp/calls?from_time=1500000000&path=%2Fhello",
        reads=(("calls.0.status", "success"), ("calls.0.path", "/hello")),
    ),
    Sent("calls get fnapp ID", "GET", "/v1/apps/fnapp/calls/{call}", reads=(("call.id", "{call}"),)),
    Sent("logs get fnapp ID", "GET", "/v1/apps/fnapp/calls/{call}/log", reads=(("log.log", ""),)),
    Sent("logs get fnapp last", "GET", "/v1/apps/fnapp/calls", reads=(("calls.0.id", "{call}"),)),
    Sent(
        "deploy --app fnnew",
        "PUT",
        "/v1/apps/fnnew/routes/%2Fhello",
        _put(format="json", timeout=30, type="sync", memory=128, idle_timeout=30, headers={}, config={}, **_ZERO),
        (("route.app_name", "fnnew"), ("route.image", "{image}")),
    ),
    Sent(
        "deploy --app fnnew (again)",
        "PUT",
        "/v1/apps/fnnew/routes/%2Fhello",
        _put(format="json", timeout=30, type="async", memory=128, idle_timeout=30, **_ZERO),
        (("message", "Route successfully updated"), ("route.type", "async")),
    ),
    Sent("call fnnew /hello (async)", "POST", "/r/fnnew/hello", {}, (("call_id", "{call}"),), 202),
    Sent("routes delete fnapp /hello", "DELETE", _ROUTE, reads=(("message", "Route deleted"),)),
    Sent("apps delete fnapp", "DELETE", "/v1/apps/fnapp", reads=(("message", "App deleted"),)),
    Sent("apps delete fnnew", "DELETE", "/v1/apps/fnnew", reads=(("message", "App deleted"),)),
)

HEAD: Final = """# The fn CLI of 2018

The fn CLI 0.4.45 speaks API v1. A test sends its requests, with its headers, escaped paths and superfluous fields, to a
running node, and checks what it reads from the answers; it also checks that this table is that of the test. The program
itself was run by hand against a node as well: every command that was tried works.

Set `FN_API_URL` as for Fn. `start`, `build`, `push`, `run`, `bump` and `init` of that CLI do not speak to a server, nor
does `test` without `--remote`. Images that it builds are for nodes that use Docker. Its `start` starts Fn's own image.
`test --remote APP` calls the deployed function. It sends the whole `input` of a case as the body, and does not fail if
the answer differs: `hearth test --remote APP /PATH` does.

| command | request | answer | read of it |
|---|---|---|---|
"""


def page() -> str:
    """The page, from the requests."""
    rows = (
        f"| `fn {sent.command}` | `{sent.method} {sent.path}` | {sent.status} | "
        f"{', '.join(f'`{key}`' for key, _ in sent.reads) or 'the body as it is'} |"
        for sent in SENT
    )
    return HEAD + "\n".join(rows) + "\n"


def filled(value: Any, names: dict[str, str]) -> Any:
    """A value with the placeholders replaced."""
    text = json.dumps(value)
    for name, given in names.items():
        text = text.replace("{" + name + "}", given)
    return json.loads(text)


def read(answer: Any, key: str) -> Any:
    """What a key with dots leads to; ``None`` if nothing is there."""
    for part in key.split("."):
        if isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else None
        else:
            answer = answer.get(part) if isinstance(answer, dict) else None
    return answer
