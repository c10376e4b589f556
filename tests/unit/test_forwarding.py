"""Requests between workers of a node, and their common metrics and counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from hearth.server.door import is_open_only
from hearth.server.forwarding import all_but_calls, from_workers
from hearth.server.sums import add_stats, join_metrics

SECRET = "secret-of-this-start"
ORIGIN = {"client": ["192.0.2.7", 4711], "server": ["192.0.2.1", 8080], "scheme": "https", "open_only": True}


class App:
    """An application that keeps the scope of the request it got."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200."""
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _status(app: Any, path: str, *headers: tuple[bytes, bytes], query: bytes = b"") -> int:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: Scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query}
    scope = {**scope, "headers": [*headers, (b"x", b"kept")], "client": None, "server": None, "scheme": "http"}
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_a_forwarded_request_has_the_client_of_the_worker_that_got_it() -> None:
    app = App()
    shown = [(b"hearth-worker", SECRET.encode()), (b"hearth-origin", msgspec.json.encode(ORIGIN))]
    assert await _status(from_workers(app, SECRET), "/v1/apps", *shown) == 200
    (scope,) = app.scopes
    assert (scope["client"], scope["scheme"]) == (("192.0.2.7", 4711), "https")
    assert is_open_only(scope)
    assert scope["headers"] == [(b"x", b"kept")]


@pytest.mark.parametrize("headers", [[], [(b"hearth-worker", b"x")], [(b"authorization", b"Bearer x")]])
async def test_without_the_secret_nothing_is_served(headers: list[tuple[bytes, bytes]]) -> None:
    app = App()
    origin = (b"hearth-origin", msgspec.json.encode(ORIGIN))
    for path in ("/v1/apps", "/workers/changed", "/v1/runner/start"):
        assert await _status(from_workers(app, SECRET, _never), path, *headers, origin) == 404
    assert app.scopes == []


async def test_a_worker_as_a_runner_shows_the_secret_as_its_token_and_no_client() -> None:
    app = App()
    origin = (b"hearth-origin", msgspec.json.encode(ORIGIN))
    bearer = (b"authorization", f"Bearer {SECRET}".encode())
    assert await _status(from_workers(app, SECRET), "/v1/runner/start", bearer, origin) == 200
    assert app.scopes[0]["client"] is None


@pytest.mark.parametrize(
    ("query", "found"), [(b"app=a", ("a", None)), (b"app=a%26b&route=%2Fr%2F%C3%A9", ("a&b", "/r/é"))]
)
async def test_changes_are_passed_on(query: bytes, found: tuple[str, str | None]) -> None:
    seen: list[tuple[str, str | None]] = []

    async def changed(app_name: str, path: str | None) -> None:
        seen.append((app_name, path))

    app = from_workers(App(), SECRET, changed)
    assert await _status(app, "/workers/changed", (b"hearth-worker", SECRET.encode()), query=query) == 200
    assert seen == [found]


async def test_a_revoked_token_is_passed_on() -> None:
    forgotten: list[str] = []
    app = from_workers(App(), SECRET, _never, forgotten.append)
    for shown, status in ((SECRET, 200), ("x", 404)):
        assert await _status(app, "/workers/revoked", (b"hearth-worker", shown.encode()), query=b"token=1") == status
    assert forgotten == ["1"]


async def test_only_function_calls_stay_with_the_worker() -> None:
    here, there = App(), App()
    app = all_but_calls(here, there)
    for path in ("/r/a/b", "/t/a/b", "/invoke/x"):
        await _status(app, path)
    for path in ("/", "/v1/apps", "/v2/apps", "/metrics", "/readyz", "/ui", "/r"):
        await _status(app, path)
    assert len(here.scopes) == 3
    assert len(there.scopes) == 7


def test_metrics_of_workers_are_series_of_one_family_each() -> None:
    own = (
        b'# HELP a Metric a\n# TYPE a gauge\na{fn_appname="x # HELP {",fn_path=""} 1\n# HELP b B\n# TYPE b gauge\nb 2\n'
    )
    other = b'# HELP a Metric a\n# TYPE a gauge\na{fn_appname="",fn_path=""} 3\n# HELP b B\n# TYPE b gauge\nb{} 4\n'
    families = list(text_string_to_metric_families(join_metrics({0: own, 2: other}).decode()))
    values = {(f.name, s.labels["worker"], s.labels.get("fn_appname")): s.value for f in families for s in f.samples}
    assert values == {("a", "0", "x # HELP {"): 1, ("a", "2", ""): 3, ("b", "0", None): 2, ("b", "2", None): 4}
    assert [family.name for family in families] == ["a", "b"]


def test_counts_of_workers_are_added_up() -> None:
    one = {"Queue": 1, "Complete": 2, "FunctionStatsMap": {"/a": {"Queue": 1}}}
    other = {"Queue": 5, "Complete": 0, "FunctionStatsMap": {"/a": {"Queue": 2}, "/b": {"Queue": 3}}}
    both = {"Queue": 6, "Complete": 2, "FunctionStatsMap": {"/a": {"Queue": 3}, "/b": {"Queue": 3}}}
    assert add_stats([one, other]) == both


async def _never(app_name: str, path: str | None) -> None:
    raise AssertionError("not for strangers")
