"""Every error that Hearth knows, in one hierarchy.

:class:`ApiError` may be shown to a client: it has a status and an exact message (API specification 1.3).
:class:`InternalError` is logged in full and shown as ``500 internal server error``.
"""

from __future__ import annotations

from typing import ClassVar

#: The largest memory a route may ask for, in MiB. The message of :class:`RoutesInvalidMemory` quotes the default.
DEFAULT_MAX_MEMORY_MIB = 8192

#: Seconds after which a client that met a full server should try again.
RETRY_AFTER_S = 15


class HearthError(Exception):
    """The root of all errors that Hearth raises on purpose."""


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
    """Something that is not the client's business: logged with its cause, shown as 500."""


class StoreUnavailable(InternalError):
    """A database, queue or log store did not do what it was asked; the cause is chained."""


class StoreRefused(InternalError):
    """A store does not take this data, however often it is offered; the cause is chained."""


class DatastoreCannotSwap(InternalError):
    """A swap was asked between two different calls: a mistake of the caller."""


class StartUpError(HearthError):
    """The node cannot start. The text names what, where, and what to do next."""


# --- classes of status --------------------------------------------------------------------------------------------


class BadRequest(ApiError):
    """The request is at fault."""

    status = 400


class NotFound(ApiError):
    """What was asked for does not exist."""

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


class RoutesInvalidTimeout(BadRequest):
    message = "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600"


class RoutesInvalidIdleTimeout(BadRequest):
    message = "idle_timeout value is out of range. It should be between 0 and 3600"


class RoutesInvalidMemory(BadRequest):
    message = f"memory value is out of range. It should be between 0 and {DEFAULT_MAX_MEMORY_MIB}"


class CallNotFound(NotFound):
    message = "Call not found"


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
        """The error for one request path."""
        return cls(f"Path not found: {path}")


class InvalidCPUs(BadRequest):
    message = "Cpus is invalid. Value should be either between [0.000 and 1024.000] or [0m and 1024000m] milliCPU units"


class RunnerUnknown(ApiError):
    """A runner did not show the secret that it shares with this node."""

    status = 401
    message = "Runner token is missing or wrong"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class RecordRefused(ApiError):
    """A runner's record cannot be stored, however often it is offered."""

    status = 422
    message = "Record cannot be stored"


class ApiNodeAway(StoreUnavailable, ApiError):
    """A runner's API node does not answer as it should. The log says in which way; clients may come back."""

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


# --- what a function did (protocols specification 6.2) --------------------------------------------------------------


class FunctionFailed(ApiError):
    """The function, not the platform, is at fault: 502."""

    status = 502


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


class ContainerStartFailed(FunctionFailed):
    """The image itself cannot start (no such executable, not executable, bad entrypoint)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"container failed to start: {reason}")


class ImagePullFailed(ApiError):
    """The image could not be had. Carries the registry's status where there is one, else 500."""

    def __init__(self, image: str, reason: str, status: int = 500) -> None:
        super().__init__(f"Failed to pull image '{image}': {reason}")
        self._code = status

    @property
    def code(self) -> int:
        return self._code
