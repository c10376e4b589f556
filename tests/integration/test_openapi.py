"""The published description holds for the server that serves it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from openapi_spec_validator import validate
from schemathesis import checks
from schemathesis.openapi.checks import JsonSchemaError
from tests.support.contract import SCHEMA, check
from tests.support.served_api import (
    APP,
    CALL,
    DEAD,
    HOLDERS,
    NEW_APP,
    NODE,
    OTHER_APP,
    REGISTRY,
    ROUTE,
    SCHEDULE,
    SECRET,
    TOKEN,
    WAITING,
    ServedApi,
    served_api,
)

from hearth.models.call import STAT_NAMES
from hearth.models.principal import AuthMode
from hearth.server.description import DESCRIPTION

_SETTINGS = hypothesis.settings(
    max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True
)
#: What is drawn at random alone: ``test_no_input_breaks_the_server_or_the_description`` sends the covering inputs, and
#: who sends an input makes a difference before it is read.
_DRAWN = hypothesis.settings(_SETTINGS, max_examples=4, phases=[hypothesis.Phase.generate])
_CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
#: Of answers that follow on others.
_IN_ORDER = [checks.use_after_free, checks.ensure_resource_availability]
_NAMES = {
    "schedule": SCHEDULE,
    "app": APP,
    "route": ROUTE,
    "call": CALL,
    "secret": SECRET,
    "registry": REGISTRY,
    "token": TOKEN,
    "node": NODE.id,
}
_APP = {"app": {"name": NEW_APP, "config": {"A": "b"}, "auth": "token"}}
_ROUTE = {"route": {"path": "/new", "image": "x", "cpus": "0.5", "headers": {"A": ["b"]}, "timeout": 3}}
_SIGNATURE = {"style": "stripe", "secret": SECRET, "tolerance": 60}
_CHANGE = {
    "route": {
        **{"image": "y", "format": "json", "memory": 64, "secrets": [SECRET], "secrets_as": "files"},
        **{"auth": "signed", "signature": _SIGNATURE},
    }
}


def _names(path: str) -> dict[str, str]:
    """The names in a path, of what exists; a call that waits can be cancelled, one that is dead be redriven."""
    found = {name: value for name, value in _NAMES.items() if f"{{{name}}}" in path}
    if "/dead-letters/{call}" in path:
        return found | {"call": DEAD}
    return found | ({"call": WAITING} if path.endswith("/cancel") else {})


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
    ("GET", "/apps/{app}/secrets", None),
    ("PUT", "/apps/{app}/secrets/{secret}", {"value": "new"}),
    ("DELETE", "/apps/{app}/secrets/{secret}", None),
    ("GET", "/apps/{app}/registries", None),
    ("PUT", "/apps/{app}/registries/{registry}", {"username": "me", "password": "new"}),
    ("DELETE", "/apps/{app}/registries/{registry}", None),
    ("GET", "/apps/{app}/versions", None),
    ("GET", "/apps/{app}/schedules", None),
    ("POST", "/apps/{app}/schedules", {"schedule": {"name": "new", "route": "/hello", "every": "90s"}}),
    ("GET", "/apps/{app}/schedules/{schedule}", None),
    ("POST", "/apps/{app}/schedules/{schedule}/run", None),
    (
        "PUT",
        "/apps/{app}/schedules/{schedule}",
        {"schedule": {"route": "/hello", "cron": "0 2 * * *"}},
    ),
    ("DELETE", "/apps/{app}/schedules/{schedule}", None),
    ("GET", "/apps/{app}/calls", None),
    ("GET", "/apps/{app}/calls/{call}", None),
    ("GET", "/apps/{app}/calls/{call}/log", None),
    ("GET", "/apps/{app}/calls/{call}/result", None),
    ("POST", "/apps/{app}/calls/{call}/cancel", None),
    ("GET", "/apps/{app}/dead-letters", None),
    ("POST", "/apps/{app}/dead-letters/redrive", None),
    ("GET", "/apps/{app}/dead-letters/{call}", None),
    ("GET", "/apps/{app}/dead-letters/{call}/payload", None),
    ("POST", "/apps/{app}/dead-letters/{call}/redrive", None),
    ("DELETE", "/apps/{app}/dead-letters/{call}", None),
    ("DELETE", "/apps/{app}/dead-letters", None),
    ("DELETE", "/apps/{app}", None),
    ("GET", "/audit", None),
    ("GET", "/nodes", None),
    ("POST", "/nodes/{node}/drain", None),
    ("GET", "/tokens", None),
    ("POST", "/tokens", {"token": {"name": "new", "role": "viewer", "apps": [APP]}}),
    ("DELETE", "/tokens/{token}", None),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with served_api(tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture
def seeded(api: ServedApi) -> ServedApi:
    """The API with what a request may name."""
    api.seed()
    return api


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Keeps its connections; a case opens one for itself."""
    with requests.Session() as opened:
        yield opened


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    """A node that asks everybody for a token."""
    with served_api(tmp_path_factory.mktemp("locked"), AuthMode.REQUIRED) as served:
        yield served


def test_the_description_is_valid_openapi() -> None:
    validate(copy.deepcopy(DESCRIPTION))


@SCHEMA.parametrize()
@_SETTINGS
def test_no_input_breaks_the_server_or_the_description(case, api: ServedApi, session: requests.Session) -> None:
    response = case.call(api.url + "/v1", session, allow_redirects=False)
    if response.status_code in (301, 307):  # a name that ends in a slash
        return
    case.validate_response(response, checks=_CHECKS)


@SCHEMA.parametrize()
@_SETTINGS
def test_what_exists_is_answered_as_described(case, seeded: ServedApi, session: requests.Session) -> None:
    case.path_parameters = {name: _NAMES[name] for name in case.path_parameters or {}}
    response = case.call(seeded.url + "/v1", session)
    if response.status_code < 400 and response.request.method not in ("GET", "HEAD"):
        seeded.seed()  # the request may have changed it
    case.validate_response(response, checks=_CHECKS)


def allowed(role: str) -> set[int]:
    """The statuses of a good request; the exact ones are in test_api_tokens.py."""
    good = {200, 202}
    return good if role == "admin" else {*good, 403, 404} if role.endswith(OTHER_APP) else {*good, 403}


@pytest.mark.parametrize("role", HOLDERS)
def test_each_role_is_answered_as_described(locked: ServedApi, role: str) -> None:
    for method, path, body in _REQUESTS:
        locked.seed()
        names = _names(path)
        given: dict[str, Any] = {} if body is None else {"body": body, "media_type": "application/json"}
        case = SCHEMA[path][method].Case(path_parameters=names, **given)
        response = case.call(base_url=locked.url + "/v1", headers={"Authorization": f"Bearer {HOLDERS[role]}"})
        assert response.status_code in allowed(role), response.text
        case.validate_response(response, checks=_CHECKS)


@SCHEMA.parametrize()
@_DRAWN
def test_no_input_of_any_role_breaks_the_server_or_the_description(
    case, locked: ServedApi, session: requests.Session
) -> None:
    locked.seed()
    for role, value in HOLDERS.items():
        headers = {"Authorization": f"Bearer {value}"}
        response = case.call(locked.url + "/v1", session, headers, allow_redirects=False)
        if response.status_code not in (301, 307):
            case.validate_response(response, checks=_CHECKS)
        assert response.status_code != 401, role
    stranger = case.call(locked.url + "/v1", session, allow_redirects=False)
    assert stranger.status_code in ({400, 401, 403, 404} if "result" in case.path else {401}), (
        "a result has tokens of its own"
    )


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
    names = _names(path)
    given: dict[str, Any] = {} if body is None else {"body": body, "media_type": "application/json"}
    case = SCHEMA[path][method].Case(path_parameters=names, **given)
    response = case.call(base_url=api.url + "/v1")
    assert response.status_code in (200, 202), response.text
    case.validate_response(response, checks=_CHECKS)


_ONE_APP, _ONE_ROUTE = "/apps/{app}", "/apps/{app}/routes/{route}"
#: What a good answer to a POST names, and the requests that may follow about it.
_LINKS = {
    "/apps": (
        {"app": "$response.body#/app/name"},
        [("get", _ONE_APP), ("patch", _ONE_APP), ("delete", _ONE_APP), ("post", "/apps/{app}/routes")],
    ),
    "/apps/{app}/routes": (
        {"app": "$request.path.app", "route": "$response.body#/route/path"},
        [("get", _ONE_ROUTE), ("patch", _ONE_ROUTE), ("delete", _ONE_ROUTE)],
    ),
}


def test_what_was_made_is_there_until_it_is_removed(api: ServedApi) -> None:
    """Sequences of requests: each may be about what an earlier one has made or removed."""
    linked = copy.deepcopy(DESCRIPTION)
    for path, (parameters, followers) in _LINKS.items():
        linked["paths"][path]["post"]["responses"]["200"]["links"] = {
            f"{method} {other}": {"operationRef": reference(method, other), "parameters": parameters}
            for method, other in followers
        }
    machine = schemathesis.openapi.from_dict(linked).as_state_machine()

    removed: set[str] = set()
    made_again: set[str] = set()  # by a POST of a route, which makes its app if there is none
    ids: set[str] = set()  # of apps: schemathesis takes them for names, as the path of an app has one parameter

    class Sequence(machine):  # type: ignore[misc, valid-type]
        def get_call_kwargs(self, case):
            return {"base_url": api.url + "/v1", "allow_redirects": False}

        def validate_response(self, response, case, **_):
            app = (case.path_parameters or {}).get("app", "")
            if response.status_code == 200 and (case.method, case.path) == ("DELETE", _ONE_APP):
                removed.add(app)
            if response.status_code == 200 and case.method == "POST" and app in removed:
                made_again.add(app)
            if response.status_code == 200 and (case.method, case.path) == ("POST", "/apps"):
                ids.add(response.json()["app"]["id"])
            if response.status_code not in (301, 307):
                in_order = [] if app in made_again | ids else _IN_ORDER
                case.validate_response(response, checks=[*_CHECKS, *in_order], recorder=self.recorder)

    Sequence.run(settings=hypothesis.settings(_SETTINGS, max_examples=10, stateful_step_count=8))


def reference(method: str, path: str) -> str:
    return f"#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method}"


@pytest.mark.parametrize(("metric", "fits"), [(7, True), ("7", False)])
async def test_samples_may_have_metrics_that_another_version_stores(api: ServedApi, metric: object, fits: bool) -> None:
    api.seed()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{api.url}/v1/apps/{APP}/calls/{CALL}")
    body = answer.json()
    body["call"]["stats"][0]["metrics"]["gpu_usage"] = metric
    changed = httpx.Response(200, json=body, request=answer.request)
    changed.elapsed = answer.elapsed
    with contextlib.nullcontext() if fits else pytest.raises(JsonSchemaError):
        await check(changed)


def test_numbers_have_the_width_of_what_they_count() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    samples = schemas["Stat"]["properties"]["metrics"]["properties"]
    assert {samples[name]["format"] for name in STAT_NAMES} == {"int64"}
    assert schemas["Route"]["properties"]["memory"]["format"] == "uint64"
