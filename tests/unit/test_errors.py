"""The error catalogue of the API specification, row by row, and how errors become HTTP."""

from __future__ import annotations

import json

import pytest

from hearth.models import errors as e
from hearth.server import errors as http

CATALOGUE = [
    (e.InvalidJSON(), 400, "Invalid JSON"),
    (e.CallTimeout(), 504, "Timed out"),
    (e.ServerBusy(), 503, "Timed out - server too busy"),
    (e.AppsMissingName(), 400, "Missing app name"),
    (e.AppsTooLongName(), 400, "App name must be 30 characters or less"),
    (e.AppsInvalidName(), 400, "Invalid app name"),
    (e.AppsAlreadyExists(), 409, "App already exists"),
    (e.AppsMissingNew(), 400, "Missing new application"),
    (e.AppsNameImmutable(), 409, "Could not update - name is immutable"),
    (e.AppsNotFound(), 404, "App not found"),
    (e.DeleteAppsWithRoutes(), 409, "Cannot remove apps with routes"),
    (e.DatastoreEmptyAppName(), 400, "Missing app name"),
    (e.DatastoreEmptyRoutePath(), 400, "Missing route name"),
    (e.DatastoreEmptyApp(), 400, "Missing app"),
    (e.DatastoreEmptyRoute(), 400, "Missing route"),
    (e.DatastoreEmptyKey(), 400, "Missing key"),
    (e.DatastoreEmptyCallID(), 400, "Missing call ID"),
    (e.DatastoreCannotUpdateCall(), 409, "Call to be updated is different from expected"),
    (e.InvalidPayload(), 400, "Invalid payload"),
    (e.RoutesAlreadyExists(), 409, "Route already exists"),
    (e.RoutesMissingNew(), 400, "Missing new route"),
    (e.RoutesNotFound(), 404, "Route not found"),
    (e.RoutesPathImmutable(), 409, "Could not update - path is immutable"),
    (e.FoundDynamicURL(), 400, "Dynamic URL is not allowed"),
    (e.RoutesInvalidPath(), 400, "Invalid route path format"),
    (e.RoutesInvalidType(), 400, "Invalid route Type"),
    (e.RoutesInvalidFormat(), 400, "Invalid route Format"),
    (e.RoutesMissingAppName(), 400, "Missing route AppName"),
    (e.RoutesMissingImage(), 400, "Missing route Image"),
    (e.RoutesMissingName(), 400, "Missing route Name"),
    (e.RoutesMissingPath(), 400, "Missing route Path"),
    (e.RoutesMissingType(), 400, "Missing route Type"),
    (e.PathMalformed(), 400, "Path malformed"),
    (e.InvalidToTime(), 400, "to_time is not an epoch time"),
    (e.InvalidFromTime(), 400, "from_time is not an epoch time"),
    (
        e.RoutesInvalidTimeout(),
        400,
        "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600",
    ),
    (e.RoutesInvalidIdleTimeout(), 400, "idle_timeout value is out of range. It should be between 0 and 3600"),
    (e.RoutesInvalidMemory(), 400, "memory value is out of range. It should be between 0 and 8192"),
    (e.CallNotFound(), 404, "Call not found"),
    (e.CallLogNotFound(), 404, "Call log not found"),
    (e.RunnerUnknown(), 401, "Runner token is missing or wrong"),
    (e.RecordRefused(), 422, "Record cannot be stored"),
    (e.ApiNodeAway(), 503, "API node not available"),
    (e.InvokeNotSupported(), 400, "Invoking routes /r/ is not supported on nodes configured as type API"),
    (
        e.APINotSupported(),
        400,
        "Invoking api /v1/ requests is not supported on nodes configured as type Runner",
    ),
    (e.PathNotFound.of("/route"), 404, "Path not found: /route"),
    (e.PathNotFound(), 404, "Path not found"),
    (
        e.InvalidCPUs(),
        400,
        "Cpus is invalid. Value should be either between [0.000 and 1024.000] or [0m and 1024000m] milliCPU units",
    ),
    (e.NotAcceptable(), 406, "unable to respond within acceptable response content types"),
    (e.BodyTooLarge(11, 10), 413, "Content-Length too large for this server, 11 > max 10"),
    (e.ContainerExited(2), 502, "container exit code 2"),
    (
        e.OutOfMemory(),
        502,
        "container out of memory, you may want to raise route.memory for this route (default: 128MB)",
    ),
    (e.InvalidResponse("http", "why"), 502, "invalid http response from function err: why"),
    (e.ImagePullFailed("a/b:1", "why", 404), 404, "Failed to pull image 'a/b:1': why"),
    (e.ImagePullFailed("a/b:1", "why"), 500, "Failed to pull image 'a/b:1': why"),
]


@pytest.mark.parametrize(("error", "status", "message"), CATALOGUE)
def test_an_error_is_told_exactly(error: e.ApiError, status: int, message: str) -> None:
    told = http.answer(error)
    assert (told.status, json.loads(told.body)) == (status, {"error": {"message": message}})
    assert told.body.endswith(b'"}}\n')
    assert told.headers["Content-Type"] == "application/json; charset=utf-8"
    assert str(error) == message


def _leaves(kind: type[e.ApiError]) -> set[type[e.ApiError]]:
    below = kind.__subclasses__()
    return set().union(*map(_leaves, below)) if below else {kind}


def test_the_catalogue_is_complete() -> None:
    ours = {kind for kind in _leaves(e.ApiError) if kind.__module__ == e.__name__}
    assert ours - {type(error) for error, _, _ in CATALOGUE} == {e.ContainerStartFailed}  # told by the drivers' suite


def test_only_a_passing_lack_of_room_says_when_to_come_back() -> None:
    assert http.answer(e.ServerBusy()).headers["Retry-After"] == "15"
    assert "Retry-After" not in http.answer(e.ServerBusy(retry_after=False)).headers


@pytest.mark.parametrize("error", [e.StoreUnavailable("secret"), e.StartUpError("secret"), ValueError("secret")])
def test_what_is_not_for_clients_is_an_internal_error(error: Exception) -> None:
    assert http.answer(error).body == b'{"error":{"message":"internal server error"}}\n'
    assert http.answer(error).status == 500
