"""The published description of API v2 holds for the server that serves it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
from openapi_spec_validator import validate
from schemathesis import checks
from tests.support.contract import SCHEMA_V2
from tests.support.served_api import (
    APP_ID,
    CALL_OF_FN,
    FN_ID,
    HOLDERS,
    OTHER_APP,
    SOURCE,
    TRIGGER_ID,
    WAITING_OF_FN,
    ServedApi,
    served_api,
)

from hearth.models.principal import AuthMode
from hearth.server.api_v2.description import DESCRIPTION

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
_NAMES = {
    "app_id": APP_ID,
    "fn_id": FN_ID,
    "trigger_id": TRIGGER_ID,
    "call_id": CALL_OF_FN,
    "type": "http",
    "source": SOURCE,
}
_FN = {"name": "new", "app_id": APP_ID, "image": "x", "annotations": {"a": [1]}, "config": {"A": "b"}}
_TRIGGER = {"name": "new", "app_id": APP_ID, "fn_id": FN_ID, "type": "http", "source": "/new"}


def _names(path: str) -> dict[str, str]:
    """The names in a path, of what exists; only a call that waits can be cancelled."""
    found = {name: value for name, value in _NAMES.items() if f"{{{name}}}" in path}
    return found | ({"call_id": WAITING_OF_FN} if path.endswith("/cancel") else {})


#: A good request for every operation.
_REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/apps", None),
    ("POST", "/apps", {"name": "new", "config": {"A": "b"}, "annotations": {"a": {}}, "shape": "GENERIC_ARM"}),
    ("GET", "/apps/{app_id}", None),
    ("PUT", "/apps/{app_id}", {"config": {"A": ""}, "syslog_url": "tcp://x:1"}),
    ("GET", "/fns", None),
    ("POST", "/fns", _FN),
    ("GET", "/fns/{fn_id}", None),
    ("PUT", "/fns/{fn_id}", {"image": "y", "memory": 256}),
    ("GET", "/fns/{fn_id}/calls", None),
    ("GET", "/fns/{fn_id}/calls/{call_id}", None),
    ("GET", "/fns/{fn_id}/calls/{call_id}/log", None),
    ("GET", "/fns/{fn_id}/calls/{call_id}/result", None),
    ("POST", "/fns/{fn_id}/calls/{call_id}/cancel", None),
    ("GET", "/triggers", None),
    ("POST", "/triggers", _TRIGGER),
    ("GET", "/triggers/{trigger_id}", None),
    ("PUT", "/triggers/{trigger_id}", {"source": "/other"}),
    ("GET", "/runner/apps/{app_id}/triggerBySource/{type}/{source}", None),
    ("DELETE", "/triggers/{trigger_id}", None),
    ("DELETE", "/fns/{fn_id}", None),
    ("DELETE", "/apps/{app_id}", None),
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


@SCHEMA_V2.parametrize()
@_SETTINGS
def test_no_input_breaks_the_server_or_the_description(case, api: ServedApi, session: requests.Session) -> None:
    response = case.call(api.url + "/v2", session, allow_redirects=False)
    if response.status_code not in (301, 307):  # an id that is a slash
        case.validate_response(response, checks=_CHECKS)


@SCHEMA_V2.parametrize()
@_SETTINGS
def test_what_exists_is_answered_as_described(case, seeded: ServedApi, session: requests.Session) -> None:
    case.path_parameters = {name: _NAMES[name] for name in case.path_parameters or {}}
    response = case.call(seeded.url + "/v2", session)
    if response.status_code < 400 and response.request.method not in ("GET", "HEAD"):
        seeded.seed()  # the request may have changed it
    case.validate_response(response, checks=_CHECKS)


def test_every_operation_is_requested_below() -> None:
    described = {
        (method.upper(), path)
        for path, operations in DESCRIPTION["paths"].items()
        for method in operations
        if method != "parameters"
    }
    assert described == {(method, path) for method, path, _ in _REQUESTS}


def allowed(role: str) -> set[int]:
    """The statuses of a good request; the exact ones are in test_api_tokens.py."""
    good = {200, 204}
    return good if role == "admin" else {*good, 403, 404} if role.endswith(OTHER_APP) else {*good, 403}


@pytest.mark.parametrize("role", HOLDERS)
def test_each_role_is_answered_as_described(locked: ServedApi, role: str) -> None:
    for method, path, body in _REQUESTS:
        locked.seed()
        names = _names(path)
        given: dict[str, Any] = {} if body is None else {"body": body, "media_type": "application/json"}
        if path in ("/fns", "/triggers") and method == "GET":
            given["query"] = {"app_id": APP_ID}
        case = SCHEMA_V2[path][method].Case(path_parameters=names, **given)
        response = case.call(base_url=locked.url + "/v2", headers={"Authorization": f"Bearer {HOLDERS[role]}"})
        good = allowed(role)
        if "{source}" in path:  # clients of such descriptions write no slash into a segment
            good.add(404)
        assert response.status_code in good, (method, path, response.text)
        case.validate_response(response, checks=_CHECKS)


@SCHEMA_V2.parametrize()
@_DRAWN
def test_no_input_of_any_role_breaks_the_server_or_the_description(
    case, locked: ServedApi, session: requests.Session
) -> None:
    locked.seed()
    for role, value in HOLDERS.items():
        headers = {"Authorization": f"Bearer {value}"}
        response = case.call(locked.url + "/v2", session, headers, allow_redirects=False)
        if response.status_code not in (301, 307):
            case.validate_response(response, checks=_CHECKS)
        assert response.status_code != 401, role
    stranger = case.call(locked.url + "/v2", session, allow_redirects=False)
    assert stranger.status_code in ({400, 401, 403, 404} if "result" in case.path else {401}), (
        "a result has tokens of its own"
    )
