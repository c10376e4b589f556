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
    (e.CallTooLarge(7), 413, "a body of 7 bytes is too large for the queue of async calls"),
    (e.InvalidStatus(), 400, "status is not one of queued, running, success, error, timeout, expired, cancelled"),
    (e.InvalidFromTime(), 400, "from_time is not an epoch time"),
    (
        e.RoutesInvalidTimeout(),
        400,
        "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600",
    ),
    (e.RoutesInvalidIdleTimeout(), 400, "idle_timeout value is out of range. It should be between 0 and 3600"),
    (e.RoutesInvalidMemory(), 400, "memory value is out of range. It should be between 0 and 8192"),
    (e.CallNotFound(), 404, "Call not found"),
    (e.CallEnded("success"), 409, "The call has ended: success"),
    (e.CallCancelled(), 409, "The call was cancelled"),
    (e.DeadLetterNotFound(), 404, "Dead letter not found"),
    (e.DeadLetterUnreadable(), 409, "The message of this call cannot be read, so it cannot be run again"),
    (
        e.TooManyQueued("shop", "/cart", 5, 1),
        429,
        "App shop: /cart has 5 queued calls, the most that it may have (max_queued)",
    ),
    (e.CallLogNotFound(), 404, "Call log not found"),
    (e.InvalidConfig("a name is empty"), 400, "Invalid config: a name is empty"),
    (e.InvalidHeader("why"), 400, "Invalid headers: why"),
    (e.RoutesInvalidImage(), 400, "Invalid route Image: it must not contain control characters"),
    (e.RoutesInvalidSecretsAs(), 400, "Invalid route secrets_as: it must be env or files"),
    (e.RoutesInvalidConcurrency("why"), 400, "Invalid route concurrency: why"),
    (e.RoutesInvalidAuth(), 400, "Invalid route auth: it must be open, token or signed (default: as the app says)"),
    (e.RoutesInvalidSignature("why"), 400, "Invalid route signature: why"),
    (e.AppsInvalidAuth(), 400, "Invalid app auth: it must be open or token (default: as the node says)"),
    (e.SignatureWrong(), 401, "This call needs a valid signature"),
    (e.SignatureUnchecked(), 503, "Signatures of this route cannot be checked now"),
    (e.SecretsNotFound(), 404, "Secret not found"),
    (
        e.SecretsInvalidName(),
        400,
        "Invalid secret name: it must consist of letters, digits and _, not begin with a digit, FN_ or HEARTH_, and "
        "have at most 128 characters",
    ),
    (e.SecretsMissingValue(), 400, "Missing secret value"),
    (e.SecretsInvalidValue(), 400, "Invalid secret value: it must be valid Unicode without NUL"),
    (e.SecretsTooLarge(65537), 413, "Secret value too large: 65537 bytes > max 65536"),
    (e.SecretsTooMany(), 409, "App has 100 secrets, which is the maximum"),
    (e.SecretsKeyUnusable("why"), 503, "why"),
    (e.InvalidSchedule("why"), 400, "Invalid schedule: why"),
    (e.SchedulesMissingNew(), 400, "Missing new schedule"),
    (e.SchedulesNotFound(), 404, "Schedule not found"),
    (e.SchedulesAlreadyExists(), 409, "Schedule already exists"),
    (e.SchedulesTooMany(), 409, "App has 1000 schedules, which is the maximum"),
    (e.RegistriesNotFound(), 404, "Registry login not found"),
    (e.RegistriesInvalidName(), 400, "Invalid registry: it must be HOST or HOST:PORT, such as ghcr.io"),
    (e.RegistriesInvalidLogin("why"), 400, "Invalid registry login: why"),
    (e.SecretsUnknown("a", "S"), 400, "Unknown secret S: store it first (hearth secrets set a S)"),
    (e.SecretGone("a", "S"), 502, "Secret S of app a does not exist (hearth secrets set a S)"),
    (e.SecretUnreadable("a", "S", "why"), 500, "Secret S of app a cannot be decrypted: why"),
    (e.RunnerUnknown(), 401, "Runner token is missing or wrong"),
    (
        e.ImageNotPinned(),
        403,
        "This token reaches some apps only, so images must be pinned (NAME@sha256:DIGEST)",
    ),
    (e.TokensNotFound(), 404, "Token not found"),
    (e.NodeNotFound(), 404, "Node not found"),
    (e.TokensMissingNew(), 400, "Missing new token"),
    (e.InvalidToken("name is missing"), 400, "Invalid token: name is missing"),
    (e.InvalidInstances("why"), 400, "Invalid number of instances: why"),
    (e.InvalidDelivery("why"), 400, "Invalid delivery: why"),
    (e.InvalidWait(), 400, "Invalid wait: it must be a number of seconds from 0 to 60"),
    (e.InvalidDelay("Fn-Delay", "a number"), 400, "Invalid Fn-Delay: it must be a number"),
    (e.CallExpired(), 504, "The call expired before it started"),
    (e.ResultExpired(), 410, "The result of this call is not kept any more"),
    (
        e.ResultTooLarge(5),
        502,
        "The result is larger than 5 bytes, the most that is kept (FN_MAX_RESULT_BYTES)",
    ),
    (e.IdempotencyKeyInvalid("why"), 400, "Invalid Idempotency-Key: why"),
    (
        e.IdempotencyKeyReused(),
        422,
        "This Idempotency-Key was used for another request: repeat a request with the same method and body",
    ),
    (e.IdempotencyKeyBusy(), 409, "The first request with this Idempotency-Key has not ended yet"),
    (
        e.AnswerNotKept(5, "01C"),
        409,
        "The request with this Idempotency-Key was answered with more than 5 bytes, the most that is kept "
        "(FN_MAX_RESULT_BYTES); it is not run again (call 01C)",
    ),
    (
        e.RequestInterrupted("01C"),
        500,
        "The server stopped while the request with this Idempotency-Key was running; it may have run in part, and "
        "is not run again (call 01C)",
    ),
    (
        e.IdempotencyUnavailable(),
        501,
        "Idempotency-Key is not supported: the API node of this runner has an earlier version",
    ),
    (e.ReplayedError(418, "why", [("X", "y")]), 418, "why"),
    (e.InvalidQuota("'x' is not one of burst"), 400, "Invalid quota: 'x' is not one of burst"),
    (
        e.BodyOverQuota("shop", 12, 10),
        413,
        "App shop exceeds its quota request_bytes (10) with a body of 12 bytes or more",
    ),
    (e.QuotaExceeded("shop", "memory_mib", 512, 1), 429, "App shop exceeds its quota memory_mib (512)"),
    (e.TokensUnavailable(), 503, "Tokens cannot be checked now"),
    (e.IssuerUnavailable(), 503, "Tokens of the OIDC issuer cannot be checked now"),
    (
        e.ControlElsewhere(),
        404,
        "Not served here: the API of this node has an address of its own (FN_ADMIN_BIND)",
    ),
    (
        e.FunctionPeer(),
        403,
        "Functions may only call functions: the control API does not answer addresses in their network",
    ),
    (
        e.Unauthenticated(),
        401,
        "This request needs a valid token: send the header Authorization: Bearer TOKEN",
    ),
    (
        e.RunnerApiClosed(),
        403,
        "/v1/runner is closed: this node has no FN_RUNNER_TOKEN; set the same one on it and on its runners",
    ),
    (e.Forbidden("runner", "apps:write"), 403, "This token's role runner does not have the action apps:write"),
    (
        e.Forbidden("viewer", "system:read", {"b", "a"}),
        403,
        "This token's role viewer does not have the action system:read beyond a, b",
    ),
    (e.HostRefused("a.example"), 403, "Host 'a.example' is not a name of this node; FN_HOSTS lists further names"),
    (e.OriginRefused(), 403, "Web pages may not use this API unless FN_API_CORS lists their origin"),
    (e.PageKeyWrong(), 403, "The page does not belong to this session: reload the dashboard"),
    (e.PageNotFetched(), 403, "Open the dashboard in a window of its own"),
    (e.LoginInvalid(), 400, 'A login is a JSON object: {"token": "TOKEN"}'),
    (e.TooManyWatchers(), 503, "Too many dashboards are open on this node: close one, or try again later"),
    (e.CallsInvalidDuration(), 400, "min_ms is not a number of milliseconds"),
    (e.ContentTypeRefused(), 415, "Content-Type must be application/json"),
    (e.TooManyWrongTokens(7), 429, "Too many wrong tokens"),
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
    (
        e.RequestBodyTimeout(2),
        408,
        "Request body timeout: its beginning did not arrive within 2 s (timeout of the route)",
    ),
    (
        e.RequestHeaderTooLarge("X", 11, 10),
        431,
        "Request header field too large: X has 11 bytes; a function of format default takes at most 10",
    ),
    (
        e.RequestHeadersTooLarge(11, 10, "X", 6),
        431,
        "Request header fields too large: 11 bytes together, 6 of them in X; a function of format default takes at"
        " most 10",
    ),
    (e.ContainerExited(2), 502, "container exit code 2"),
    (
        e.OutOfMemory(),
        502,
        "container out of memory, you may want to raise route.memory for this route (default: 128MB)",
    ),
    (e.InvalidResponse("http", "why"), 502, "invalid http response from function err: why"),
    (e.FunctionRaised(), 502, "function failed"),
    (e.FunctionBroken(detail="why"), 502, "invalid function response"),
    (e.FunctionGone(detail="why"), 502, "error receiving function response"),
    (e.AnswerHeadTooLarge(), 502, "function response header too large"),
    (e.AnswerTooLarge(), 502, "function response body too large"),
    (
        e.StartedBadly(detail="why"),
        502,
        "Container failed to initialize, please ensure you are using the latest fdk and check the logs",
    ),
    (
        e.StartTimeout(detail="why"),
        504,
        "Container initialization timed out, please ensure you are using the latest fdk and check the logs",
    ),
    (e.ImagePullFailed("a/b:1", "why", 404), 404, "Failed to pull image 'a/b:1': why"),
    (e.ImagePullFailed("a/b:1", "why", 502), 502, "Failed to pull image 'a/b:1': why"),
    (e.ImagePullTimeout(), 504, "Image pull timed out"),
    (e.ImageHasVolume(), 400, "image has Volume definition"),
    (e.SyslogUnavailable(), 500, "Syslog Unavailable"),
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
    assert http.answer(e.QuotaExceeded("shop", "calls_per_second", 5, 3)).headers["Retry-After"] == "3"
    assert "Retry-After" not in http.answer(e.QuotaExceeded("shop", "memory_mib", 64, None)).headers


@pytest.mark.parametrize("error", [e.StoreUnavailable("secret"), e.StartUpError("secret"), ValueError("secret")])
def test_what_is_not_for_clients_is_an_internal_error(error: Exception) -> None:
    assert http.answer(error).body == b'{"error":{"message":"internal server error"}}\n'
    assert http.answer(error).status == 500
