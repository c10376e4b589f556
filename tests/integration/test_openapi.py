"""The published description holds for the server that serves it."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from schemathesis import checks
from tests.support.contract import SCHEMA
from tests.support.served_api import APP, CALL, ROUTE, ServedApi, served_api

from hearth.server.description import DESCRIPTION

_SETTINGS = hypothesis.settings(
    max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True
)
_CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
_NAMES = {"app": APP, "route": ROUTE, "call": CALL}
_APP = {"app": {"name": "new", "config": {"A": "b"}}}
_ROUTE = {"route": {"path": "/new", "image": "x", "cpus": "0.5", "headers": {"A": ["b"]}, "timeout": 3}}
_CHANGE = {"route": {"image": "y", "format": "json", "memory": 64}}
#: A good request for every operation.
_REQUESTS = [
    ("GET", "/apps", None),
    ("POST", "/apps", _APP),
    ("GET", "/apps/{app}", None),
    ("PATCH", "/apps/{app}", {"app": {"config": {"A": ""}}}),
    ("GET", "/apps/{app}/routes", None),
    ("POST", "/apps/{app}/routes", _ROUTE),
    ("GET", "/apps/{app}/routes/{route}", None),
    ("PUT", "/apps/{app}/routes/{route}", _CHANGE),
    ("PATCH", "/apps/{app}/routes/{route}", _CHANGE),
    ("DELETE", "/apps/{app}/routes/{route}", None),
    ("GET", "/apps/{app}/calls", None),
    ("GET", "/apps/{app}/calls/{call}", None),
    ("GET", "/apps/{app}/calls/{call}/log", None),
    ("DELETE", "/apps/{app}", None),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with served_api(tmp_path_factory.mktemp("api")) as served:
        yield served


@SCHEMA.parametrize()
@_SETTINGS
def test_no_input_breaks_the_server_or_the_description(case, api: ServedApi) -> None:  # type: ignore[no-untyped-def]
    response = case.call(base_url=api.url + "/v1", allow_redirects=False)
    if response.status_code in (301, 307):  # a name that ends in a slash
        return
    case.validate_response(response, checks=_CHECKS)


@SCHEMA.parametrize()
@_SETTINGS
def test_what_exists_is_answered_as_described(case, api: ServedApi) -> None:  # type: ignore[no-untyped-def]
    api.seed()
    case.path_parameters = {name: _NAMES[name] for name in case.path_parameters or {}}
    case.validate_response(case.call(base_url=api.url + "/v1"), checks=_CHECKS)


def test_every_operation_is_requested_below() -> None:
    described = {
        (method.upper(), path)
        for path, operations in DESCRIPTION["paths"].items()
        for method in operations
        if method != "parameters"
    }
    assert described == {(method, path) for method, path, _ in _REQUESTS}


@pytest.mark.parametrize(("method", "path", "body"), _REQUESTS)
def test_a_good_request_is_answered_as_described(api: ServedApi, method: str, path: str, body: object) -> None:
    api.seed()
    names = {name: value for name, value in _NAMES.items() if f"{{{name}}}" in path}
    given = {} if body is None else {"body": body, "media_type": "application/json"}
    case = SCHEMA[path][method].Case(path_parameters=names, **given)
    response = case.call(base_url=api.url + "/v1")
    assert response.status_code == 200, response.text
    case.validate_response(response, checks=_CHECKS)
