"""Requests for the API in every disguise that a server in front, or a check, might read in another way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.support.node import RunningNode, running_node
from tests.support.raw_http import RawAnswer, RawClient

#: Spellings of paths of the API. None of them may show more than a path that does not exist.
PATHS = [
    "/v1/apps",
    "/v1/apps/",
    "//v1/apps",
    "/./v1/apps",
    "/../v1/apps",
    "/%2e/v1/apps",
    "/%2e%2e/v1/apps",
    "/%2fv1/apps",
    "/v1%2fapps",
    "/v1%2Fapps%2F",
    "/%76%31/apps",
    "/v1/%61pps",
    "/v1/%2561pps",
    "/V1/APPS",
    "/v1/apps;x=y",
    "/v1/apps?x=/r/a",
    "/v1/apps%3fx",
    "/v1\\apps",
    "/v1/apps%00",
    "/r/../v1/apps",
    "/r%2f..%2fv1%2fapps",
    "/r/%2e%2e/%2e%2e/v1/apps",
    "/r/..%2f..%2fmetrics",
    "/healthz/../v1/apps",
    "/healthz/%2e%2e/metrics",
    "/version/..%2fmetrics",
    "/v1/runner/async",
    "/v1/runner%2fasync",
    "//v1/runner/async",
    "/v1/./runner/async",
    "/v1/apps/../runner/async",
    "/metrics",
    "/metrics/",
    "//metrics",
    "/stats",
    "/docs",
    "/v1/openapi.json",
    "http://localhost/v1/apps",
    "HTTP://localhost/metrics",
    "https://localhost/v1/apps",
    "http://localhost//v1/apps",
    "http://localhost/r/../v1/apps",
    "http://127.0.0.1:1/v1/apps",
]
#: Fields that some servers take for the address, the path, the method or the sender of a request.
FIELDS = [
    "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1;host=localhost",
    "X-Forwarded-Host: localhost\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: https",
    "X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz",
    "X-HTTP-Method-Override: OPTIONS\r\nX-Forwarded-Prefix: /r/",
    "Sec-Fetch-Site: none\r\nX-Requested-With: XMLHttpRequest",
    "Authorization: Bearer \r\nX-Forwarded-User: admin\r\nRemote-User: admin",
    "Proxy-Authorization: Bearer admin\r\nCookie: token=admin; hearth.principal=admin",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE"]
#: What a request may get that has no right: nothing, or a redirect to the same path without its slash.
REFUSED = {301, 307, 400, 401, 403, 404, 405, 409}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp("locked")
    with running_node("process", data, "", FN_AUTH="required", FN_RUNNER_TOKEN="runner") as node:
        yield node


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node whose API is elsewhere, and open to this machine."""
    data = tmp_path_factory.mktemp("split")
    with running_node("process", data, "", FN_ADMIN_BIND="127.0.0.1:0", FN_RUNNER_TOKEN="runner") as node:
        yield node


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running_node("process", tmp_path_factory.mktemp("default"), "") as node:
        yield node


def ask(node: RunningNode, head: str, method: str = "GET") -> RawAnswer:
    with RawClient(node.url) as raw:
        raw.send(f"{head}\r\n\r\n")
        answer = raw.answer(method)
        assert answer, head
        return answer


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_opens_what_is_closed(locked: RunningNode, split: RunningNode, path: str) -> None:
    for node, method in itertools.product((locked, split), METHODS):
        answer = ask(node, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", method)
        assert answer.status in REFUSED, (method, answer)
        if answer.status in (301, 307):
            assert answer.headers["location"].startswith("/v1/apps") or answer.headers["location"] == "/metrics"


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("path", ["/v1/apps", "/metrics", "/v1/runner/async"])
def test_no_field_stands_for_a_token_an_address_or_a_path(
    locked: RunningNode, split: RunningNode, path: str, fields: str
) -> None:
    assert ask(locked, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}").status == 401
    assert ask(split, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}").status == 404


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("hosts", "statuses"),
    [
        ("Host: localhost", {200}),
        ("", {200, 400}),
        ("Host: evil.example", {403}),
        ("Host: localhost\r\nHost: evil.example", {400}),
        ("Host: evil.example\r\nHost: localhost", {400}),
        ("Host: localhost\r\nHost: localhost", {400}),
        ("Host: localhost, evil.example", {400}),
        ("Host: localhost,evil.example", {403}),
        ("Host: evil.example#localhost", {400}),
        ("Host: evil.example/localhost", {400}),
        ("Host: me@localhost", {400}),
        ("Host: localhost\r\n evil.example", {400}),
        ("Host : localhost", {400}),
        ("X: y\r\n\tHost: localhost", {200, 400}),
    ],
)
def test_a_request_has_one_host_and_a_foreign_one_gets_nothing(
    default: RunningNode, version: str, hosts: str, statuses: set[int]
) -> None:
    lines = f"{hosts}\r\n" if hosts else ""
    answer = ask(default, f"GET /v1/apps HTTP/{version}\r\n{lines}Accept: */*")
    assert answer.status in statuses
    if version == "1.1" and "Host: l" not in hosts.split("\t")[0]:
        assert answer.status != 200, "HTTP/1.1 needs a host"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_host_of_an_absolute_target_counts(default: RunningNode, version: str) -> None:
    """A server in front may have looked at either of the two (RFC 9112, 3.2.2)."""
    for target, host, status in (
        ("http://evil.example/v1/apps", "localhost", 403),
        ("http://localhost/v1/apps", "evil.example", 200),
        ("http://localhost.evil.example/v1/apps", "localhost", 403),
    ):
        answer = ask(default, f"GET {target} HTTP/{version}\r\nHost: {host}")
        assert answer.status == status, (target, host)
