"""Every error that Hearth knows, in one hierarchy.

:class:`ApiError` may be shown to a client: it has a status and an exact message (API specification 1.3).
:class:`InternalError` is logged in full and shown as ``500 internal server error``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import ClassVar, TypeVar

#: The largest memory a route may ask for, in MiB. The message of :class:`RoutesInvalidMemory` quotes the default.
DEFAULT_MAX_MEMORY_MIB = 8192

#: Seconds after which a client that met a full server should try again.
RETRY_AFTER_S = 15

#: Limits of secrets: characters of a name, bytes of a value in UTF-8, secrets of an app.
MAX_SECRET_NAME_LENGTH = 128
MAX_SECRET_BYTES = 65536
MAX_SECRETS = 100
#: Schedules of an app.
MAX_SCHEDULES = 1000


class HearthError(Exception):
    """The root of all errors that Hearth raises on purpose."""


E = TypeVar("E", bound=BaseException)


def fresh(error: E) -> E:
    """Return a copy to raise. A raised error holds the frames it went through, so no two waiters may share one."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy


class ApiError(HearthError):
    """An error whose status and message a client may see.

    Args:
        message: Replaces the class's message where the text carries details.
    """

    status: ClassVar[int] = 500
    message: str = "internal server error"

    def __init__(self, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)

    @property
    def code(self) -> int:
        """The HTTP status. A property, so that an error may carry a status of its own (a registry's, say)."""
        return self.status

    @property
    def headers(self) -> dict[str, str]:
        """Extra response headers that belong to this error."""
        return {}


class InternalError(HearthError):
    """An error of the platform: logged with its cause, shown to clients as 500."""


class StoreUnavailable(InternalError):
    """A database, queue or log store failed; the cause is chained."""


def is_shortage(exc: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is a lack of file descriptors."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            return True
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__
    return False


class StoreRefused(InternalError):
    """A store refuses this data, and every retry; the cause is chained."""


class DatastoreCannotSwap(InternalError):
    """A swap was requested between two different calls: an error of the caller."""


class StartUpError(HearthError):
    """The node cannot start. The text names the cause, its place, and what to do next."""


# --- classes of status --------------------------------------------------------------------------------------------


class BadRequest(ApiError):
    """The request is at fault."""

    status = 400


class NotFound(ApiError):
    """The requested object does not exist."""

    status = 404


class Conflict(ApiError):
    """The request contradicts what is stored."""

    status = 409


# --- the catalogue (API specification 1.3), one class per row --------------------------------------------------------


class InvalidJSON(BadRequest):
    message = "Invalid JSON"


class CallTimeout(ApiError):
    status = 504
    message = "Timed out"


class ServerBusy(ApiError):
    """No capacity now. ``retry_after`` is false where the request can never fit this node."""

    status = 503
    message = "Timed out - server too busy"

    def __init__(self, *, retry_after: bool = True) -> None:
        super().__init__()
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER_S)} if self.retry_after else {}


class QuotaExceeded(ApiError):
    """An app is over one of its quotas.

    Args:
        app: The app.
        quota: The name of the quota.
        value: Its value.
        retry_after_s: Seconds until another attempt may succeed; ``None`` if none can.
    """

    status = 429

    def __init__(self, app: str, quota: str, value: int, retry_after_s: int | None) -> None:
        super().__init__(f"App {app} exceeds its quota {quota} ({value})")
        self.quota = quota
        self._retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {} if self._retry_after_s is None else {"Retry-After": str(self._retry_after_s)}


class TooManyQueued(ApiError):
    """As many async calls of a function are queued as its ``max_queued`` allows."""

    status = 429

    def __init__(self, app: str, function: str, most: int, retry_after_s: int) -> None:
        super().__init__(f"App {app}: {function} has {most} queued calls, the most that it may have (max_queued)")
        self._retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after_s)}


class AppsMissingName(BadRequest):
    message = "Missing app name"


class AppsTooLongName(BadRequest):
    message = "App name must be 30 characters or less"


class AppsInvalidName(BadRequest):
    message = "Invalid app name"


class AppsAlreadyExists(Conflict):
    message = "App already exists"


class AppsMissingNew(BadRequest):
    message = "Missing new application"


class AppsNameImmutable(Conflict):
    message = "Could not update - name is immutable"


class AppsNotFound(NotFound):
    message = "App not found"


class DeleteAppsWithRoutes(Conflict):
    message = "Cannot remove apps with routes"


class DatastoreEmptyAppName(BadRequest):
    message = "Missing app name"


class DatastoreEmptyRoutePath(BadRequest):
    message = "Missing route name"


class DatastoreEmptyApp(BadRequest):
    message = "Missing app"


class DatastoreEmptyRoute(BadRequest):
    message = "Missing route"


class DatastoreEmptyKey(BadRequest):
    message = "Missing key"


class DatastoreEmptyCallID(BadRequest):
    message = "Missing call ID"


class DatastoreCannotUpdateCall(Conflict):
    message = "Call to be updated is different from expected"


class InvalidPayload(BadRequest):
    message = "Invalid payload"


class RoutesAlreadyExists(Conflict):
    message = "Route already exists"


class RoutesMissingNew(BadRequest):
    message = "Missing new route"


class RoutesNotFound(NotFound):
    message = "Route not found"


class RoutesPathImmutable(Conflict):
    message = "Could not update - path is immutable"


class FoundDynamicURL(BadRequest):
    message = "Dynamic URL is not allowed"


class RoutesInvalidPath(BadRequest):
    message = "Invalid route path format"


class RoutesInvalidType(BadRequest):
    message = "Invalid route Type"


class RoutesInvalidFormat(BadRequest):
    message = "Invalid route Format"


class RoutesMissingAppName(BadRequest):
    message = "Missing route AppName"


class RoutesMissingImage(BadRequest):
    message = "Missing route Image"


class RoutesMissingName(BadRequest):
    message = "Missing route Name"


class RoutesMissingPath(BadRequest):
    message = "Missing route Path"


class RoutesMissingType(BadRequest):
    message = "Missing route Type"


class PathMalformed(BadRequest):
    message = "Path malformed"


class InvalidToTime(BadRequest):
    message = "to_time is not an epoch time"


class InvalidFromTime(BadRequest):
    message = "from_time is not an epoch time"


class InvalidStatus(BadRequest):
    message = "status is not one of queued, running, success, error, timeout, expired, cancelled"


class RoutesInvalidTimeout(BadRequest):
    message = "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600"


class RoutesInvalidIdleTimeout(BadRequest):
    message = "idle_timeout value is out of range. It should be between 0 and 3600"


class RoutesInvalidMemory(BadRequest):
    message = f"memory value is out of range. It should be between 0 and {DEFAULT_MAX_MEMORY_MIB}"


class CallNotFound(NotFound):
    message = "Call not found"


class DeadLetterNotFound(NotFound):
    message = "Dead letter not found"


class DeadLetterUnreadable(Conflict):
    message = "The message of this call cannot be read, so it cannot be run again"


class CallEnded(Conflict):
    """A call that has ended cannot be cancelled."""

    def __init__(self, status: str) -> None:
        super().__init__(f"The call has ended: {status}")


class CallLogNotFound(NotFound):
    message = "Call log not found"


class InvokeNotSupported(BadRequest):
    message = "Invoking routes /r/ is not supported on nodes configured as type API"


class APINotSupported(BadRequest):
    message = "Invoking api /v1/ requests is not supported on nodes configured as type Runner"


class PathNotFound(NotFound):
    """No such path. Construct it with :meth:`of`, which names the path."""

    message = "Path not found"

    @classmethod
    def of(cls, path: str) -> PathNotFound:
        """Return the error for one request path."""
        return cls(f"Path not found: {path}")


class InvalidCPUs(BadRequest):
    message = "Cpus is invalid. Value should be either between [0.000 and 1024.000] or [0m and 1024000m] milliCPU units"


class Unauthenticated(ApiError):
    """The request has no valid token. The message does not say why."""

    status = 401
    message = "This request needs a valid token: send the header Authorization: Bearer TOKEN"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class InvalidConfig(BadRequest):
    """A config entry cannot be an environment variable."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid config: {problem}")


class InvalidHeader(BadRequest):
    """A route's header cannot be a response header."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid headers: {problem}")


class RoutesInvalidImage(BadRequest):
    message = "Invalid route Image: it must not contain control characters"


class RoutesInvalidSecretsAs(BadRequest):
    message = "Invalid route secrets_as: it must be env or files"


class RoutesInvalidConcurrency(BadRequest):
    """A container cannot run so many calls at once, or not in this format."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid route concurrency: {problem}")


class InvalidInstances(BadRequest):
    """A function cannot have such a number of containers."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid number of instances: {problem}")
        self.problem = problem


class RoutesInvalidAuth(BadRequest):
    message = "Invalid route auth: it must be open, token or signed (default: as the app says)"


class RoutesInvalidSignature(BadRequest):
    """The signature that a route asks for is not complete, or not possible."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid route signature: {problem}")


class AppsInvalidAuth(BadRequest):
    message = "Invalid app auth: it must be open or token (default: as the node says)"


class SecretsNotFound(NotFound):
    message = "Secret not found"


class SecretsInvalidName(BadRequest):
    message = (
        "Invalid secret name: it must consist of letters, digits and _, not begin with a digit, FN_ or HEARTH_, and "
        f"have at most {MAX_SECRET_NAME_LENGTH} characters"
    )


class SecretsMissingValue(BadRequest):
    message = "Missing secret value"


class SecretsInvalidValue(BadRequest):
    message = "Invalid secret value: it must be valid Unicode without NUL"


class SecretsTooLarge(ApiError):
    """The value of a secret has too many bytes."""

    status = 413

    def __init__(self, size: int) -> None:
        super().__init__(f"Secret value too large: {size} bytes > max {MAX_SECRET_BYTES}")


class SecretsTooMany(Conflict):
    message = f"App has {MAX_SECRETS} secrets, which is the maximum"


class InvalidSchedule(BadRequest):
    """A schedule cannot be as asked for; the text begins with the field."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid schedule: {problem}")


class SchedulesMissingNew(BadRequest):
    message = "Missing new schedule"


class SchedulesNotFound(NotFound):
    message = "Schedule not found"


class SchedulesAlreadyExists(Conflict):
    message = "Schedule already exists"


class SchedulesTooMany(Conflict):
    message = f"App has {MAX_SCHEDULES} schedules, which is the maximum"


class SecretsKeyUnusable(ApiError):
    """Secrets cannot be stored or read, because this node has no usable key. The text says why and what to do."""

    status = 503


class RegistriesNotFound(NotFound):
    message = "Registry login not found"


class RegistriesInvalidName(BadRequest):
    message = "Invalid registry: it must be HOST or HOST:PORT, such as ghcr.io"


class RegistriesInvalidLogin(BadRequest):
    """A registry cannot be opened with these credentials. The message does not quote them."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid registry login: {problem}")


class SecretsUnknown(BadRequest):
    """An app or a route names a secret that does not exist."""

    def __init__(self, app_name: str, name: str) -> None:
        super().__init__(f"Unknown secret {name}: store it first (hearth secrets set {app_name} {name})")


class SignatureWrong(ApiError):
    """A call of a route that asks for a signature has no valid one. The message does not say why."""

    status = 401
    message = "This call needs a valid signature"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Signature"}


class SignatureUnchecked(ApiError):
    """The key of a route's signatures is not there. The log says which and why, the message does not."""

    status = 503
    message = "Signatures of this route cannot be checked now"


class RunnerUnknown(ApiError):
    """A runner did not show the secret that it shares with this node."""

    status = 401
    message = "Runner token is missing or wrong"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class RunnerApiClosed(ApiError):
    status = 403
    message = "/v1/runner is closed: this node has no FN_RUNNER_TOKEN; set the same one on it and on its runners"


class Forbidden(ApiError):
    """The principal is known, but lacks the right to do this."""

    status = 403

    def __init__(self, role: str, action: str, apps: Iterable[str] = ()) -> None:
        only = f" beyond {', '.join(sorted(apps))}" if apps else ""
        super().__init__(f"This token's role {role} does not have the action {action}{only}")


class IssuerUnavailable(StoreUnavailable, ApiError):
    """The keys of the OpenID Connect issuer are not known, so its tokens cannot be checked."""

    status = 503
    message = "Tokens of the OIDC issuer cannot be checked now"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER_S)}


class ImageNotPinned(ApiError):
    """A token of some apps names an image that may be another app's."""

    status = 403
    message = "This token reaches some apps only, so images must be pinned (NAME@sha256:DIGEST)"


class TokensNotFound(NotFound):
    message = "Token not found"


class NodeNotFound(NotFound):
    message = "Node not found"


class TokensMissingNew(BadRequest):
    message = "Missing new token"


class InvalidQuota(BadRequest):
    """An app cannot have such a quota."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid quota: {problem}")


class InvalidDelivery(BadRequest):
    """The async calls of a function cannot be delivered so."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid delivery: {problem}")


class InvalidWait(BadRequest):
    message = "Invalid wait: it must be a number of seconds from 0 to 60"


class InvalidDelay(BadRequest):
    """An async call cannot begin at such a time."""

    def __init__(self, header: str, form: str) -> None:
        super().__init__(f"Invalid {header}: it must be {form}")


class CallExpired(ApiError):
    """An accepted call was not started in time."""

    status = 504
    message = "The call expired before it started"


class CallCancelled(ApiError):
    """A client cancelled an accepted call."""

    status = 409
    message = "The call was cancelled"


class ResultExpired(ApiError):
    """The result of a call that has ended is not kept any more."""

    status = 410
    message = "The result of this call is not kept any more"


class ResultTooLarge(ApiError):
    """The answer of a call is larger than what a node keeps."""

    status = 502

    def __init__(self, limit: int) -> None:
        super().__init__(f"The result is larger than {limit} bytes, the most that is kept (FN_MAX_RESULT_BYTES)")


class IdempotencyKeyInvalid(BadRequest):
    """A request has an ``Idempotency-Key`` of the wrong form."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid Idempotency-Key: {problem}")


class IdempotencyKeyReused(ApiError):
    """The key belongs to another request."""

    status = 422
    message = "This Idempotency-Key was used for another request: repeat a request with the same method and body"


class IdempotencyKeyBusy(Conflict):
    """The first request with the key still runs."""

    message = "The first request with this Idempotency-Key has not ended yet"

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": "1"}


class AnswerNotKept(Conflict):
    """The answer to the first request with the key was sent to its caller, and is not stored."""

    def __init__(self, limit: int, call_id: str) -> None:
        super().__init__(
            f"The request with this Idempotency-Key was answered with more than {limit} bytes, the most that is kept "
            f"(FN_MAX_RESULT_BYTES); it is not run again (call {call_id})"
        )


class RequestInterrupted(ApiError):
    """The node that ran the first request with the key died or was stopped."""

    def __init__(self, call_id: str) -> None:
        super().__init__(
            "The server stopped while the request with this Idempotency-Key was running; it may have run in part, and "
            f"is not run again (call {call_id})"
        )


class IdempotencyUnavailable(ApiError):
    """This node cannot keep the promise of the key, so it does not run the request."""

    status = 501
    message = "Idempotency-Key is not supported: the API node of this runner has an earlier version"


class ReplayedError(ApiError):
    """The stored error of an earlier request."""

    def __init__(self, code: int, message: str, headers: Iterable[tuple[str, str]]) -> None:
        super().__init__(message)
        self._code = code
        self._headers = dict(headers)

    @property
    def code(self) -> int:
        """The status of the stored answer."""
        return self._code

    @property
    def headers(self) -> dict[str, str]:
        """The header fields of the stored answer."""
        return self._headers


class InvalidToken(BadRequest):
    """A token cannot be created as asked for."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Invalid token: {problem}")


class TokensUnavailable(StoreUnavailable, ApiError):
    """The database that stores tokens does not answer, so a token cannot be checked."""

    status = 503
    message = "Tokens cannot be checked now"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class HostRefused(ApiError):
    """The request names this node by an unknown host name: a web page may have bound its own name to the node."""

    status = 403

    def __init__(self, host: str) -> None:
        super().__init__(f"Host {host!r} is not a name of this node; FN_HOSTS lists further names")


class OriginRefused(ApiError):
    """A web page that is not listed uses the API."""

    status = 403
    message = "Web pages may not use this API unless FN_API_CORS lists their origin"


class PageKeyWrong(ApiError):
    """A page other than the dashboard, or one of an earlier session, uses the session of a browser."""

    status = 403
    message = "The page does not belong to this session: reload the dashboard"


class PageNotFetched(ApiError):
    """A script or a frame asks for the page of the dashboard, which only a window of its own may show."""

    status = 403
    message = "Open the dashboard in a window of its own"


class LoginInvalid(BadRequest):
    message = 'A login is a JSON object: {"token": "TOKEN"}'


class TooManyWatchers(ApiError):
    """Too many pages of the dashboard receive live numbers."""

    status = 503
    message = "Too many dashboards are open on this node: close one, or try again later"


class CallsInvalidDuration(BadRequest):
    message = "min_ms is not a number of milliseconds"


class ContentTypeRefused(ApiError):
    """A browser sends a body of a kind that any web page can send."""

    status = 415
    message = "Content-Type must be application/json"


class TooManyWrongTokens(ApiError):
    """An address has shown too many wrong tokens."""

    status = 429
    message = "Too many wrong tokens"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__()
        self._retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after_s)}


class RecordRefused(ApiError):
    """A runner's record cannot be stored, and retries cannot succeed."""

    status = 422
    message = "Record cannot be stored"


class ApiNodeAway(StoreUnavailable, ApiError):
    """A runner's API node does not answer correctly. The log has the details; clients may retry."""

    status = 503
    message = "API node not available"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER_S)}


class NotAcceptable(ApiError):
    status = 406
    message = "unable to respond within acceptable response content types"


class BodyTooLarge(ApiError):
    """The request's Content-Length exceeds the server's limit (bytes)."""

    status = 413

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"Content-Length too large for this server, {length} > max {limit}")
        self.length = length
        self.limit = limit


class BodyOverQuota(ApiError):
    """The body of a request exceeds the quota of its app. No later attempt helps, so this is no 429."""

    status = 413

    def __init__(self, app: str, length: int, limit: int) -> None:
        super().__init__(f"App {app} exceeds its quota request_bytes ({limit}) with a body of {length} bytes or more")


class RequestBodyTimeout(ApiError):
    """The client has not sent the start of the body that it announced."""

    status = 408

    def __init__(self, limit_s: float) -> None:
        super().__init__(
            f"Request body timeout: its beginning did not arrive within {limit_s:g} s (timeout of the route)"
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}


class RequestHeaderTooLarge(ApiError):
    """A header does not fit into the function's environment."""

    status = 431

    def __init__(self, name: str, size: int, limit: int) -> None:
        text = f"{name} has {size} bytes; a function of format default takes at most {limit}"
        super().__init__(f"Request header field too large: {text}")


class RequestHeadersTooLarge(ApiError):
    """The headers together do not fit into the function's environment."""

    status = 431

    def __init__(self, size: int, limit: int, largest: str, largest_size: int) -> None:
        text = f"{size} bytes together, {largest_size} of them in {largest}"
        text += f"; a function of format default takes at most {limit}"
        super().__init__(f"Request header fields too large: {text}")


class CallTooLarge(ApiError):
    """The queue refuses a call with a body of this size."""

    status = 413

    def __init__(self, length: int) -> None:
        super().__init__(f"a body of {length} bytes is too large for the queue of async calls")


# --- what a function did (protocols specification 6.2) --------------------------------------------------------------


class FunctionFailed(ApiError):
    """The function, not the platform, is at fault: 502.

    Args:
        detail: For the record of the call: clients do not see it.
    """

    status = 502

    def __init__(self, message: str | None = None, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class ContainerExited(FunctionFailed):
    """The container ended while a call was running, or with a non-zero code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"container exit code {code}")


class OutOfMemory(FunctionFailed):
    message = "container out of memory, you may want to raise route.memory for this route (default: 128MB)"


class InvalidResponse(FunctionFailed):
    """A hot function's output was not a response of its format."""

    def __init__(self, format_name: str, detail: str) -> None:
        super().__init__(f"invalid {format_name} response from function err: {detail}")


class FunctionRaised(FunctionFailed):
    """The kit of a function says that it raised an error."""

    message = "function failed"


class FunctionBroken(FunctionFailed):
    """A function answered what its contract does not know."""

    message = "invalid function response"


class FunctionGone(FunctionFailed):
    """A function ended, or closed its connection, before the end of its answer."""

    message = "error receiving function response"


class AnswerHeadTooLarge(FunctionFailed):
    message = "function response header too large"


class AnswerTooLarge(FunctionFailed):
    message = "function response body too large"


class StartedBadly(FunctionFailed):
    """A container ended, or made something else, before it took calls."""

    message = "Container failed to initialize, please ensure you are using the latest fdk and check the logs"


class StartTimeout(FunctionFailed):
    """A container did not take calls in time."""

    status = 504
    message = "Container initialization timed out, please ensure you are using the latest fdk and check the logs"


class ImageHasVolume(BadRequest):
    message = "image has Volume definition"


class SyslogUnavailable(ApiError):
    message = "Syslog Unavailable"


class ImagePullTimeout(ApiError):
    status = 504
    message = "Image pull timed out"


class ContainerStartFailed(FunctionFailed):
    """The image itself cannot start (no such executable, not executable, bad entrypoint)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"container failed to start: {reason}")


class ControlElsewhere(NotFound):
    """The listener of function calls serves no API, because that has a listener of its own."""

    message = "Not served here: the API of this node has an address of its own (FN_ADMIN_BIND)"


class SecretUnavailable(ApiError):
    """A function cannot be called without one of its secrets.

    Attributes:
        name: The name of the secret.
        reason: Why it cannot be decrypted; empty if it does not exist.
    """

    name: str
    reason: str = ""


class SecretGone(SecretUnavailable):
    """The secret that a function names was deleted."""

    status = 502

    def __init__(self, app_name: str, name: str) -> None:
        super().__init__(f"Secret {name} of app {app_name} does not exist (hearth secrets set {app_name} {name})")
        self.name = name


class SecretUnreadable(SecretUnavailable):
    """The secret was stored with a key that this node does not have, or its row is damaged."""

    status = 500

    def __init__(self, app_name: str, name: str, reason: str) -> None:
        super().__init__(f"Secret {name} of app {app_name} cannot be decrypted: {reason}")
        self.name, self.reason = name, reason


class FunctionPeer(ApiError):
    """The request comes from a network of functions, and is not a call."""

    status = 403
    message = "Functions may only call functions: the control API does not answer addresses in their network"


class ImagePullFailed(ApiError):
    """The image is not available. The status is the registry's if there is one."""

    def __init__(self, image: str, reason: str, status: int) -> None:
        super().__init__(f"Failed to pull image '{image}': {reason}")
        self._code = status

    @property
    def code(self) -> int:
        return self._code
