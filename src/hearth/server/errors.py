"""The only place where an exception becomes HTTP (API specification 1.2)."""

from __future__ import annotations

import dataclasses
from typing import Final

import msgspec
from starlette.responses import Response

from hearth.agent.outcomes import Stopped
from hearth.models.errors import ApiError, ServerBusy, is_shortage
from hearth.server.registry.errors import CHALLENGE
from hearth.server.registry.errors import body as registry_body
from hearth.server.registry.paths import is_registry
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)

JSON_TYPE = "application/json; charset=utf-8"
#: Beginnings of the paths of API v2, whose errors have no wrapper.
OF_V2: Final = ("/v2/", "/invoke/", "/t/")


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The answer that reports an error to a client."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(exc: Exception, path: str = "") -> ErrorAnswer:
    """Return the answer to an exception, and log it. What is not meant for clients is shown as 500.

    Args:
        exc: The exception.
        path: The path of the request: each API has a form of its own.
    """
    tell(exc)
    if not isinstance(exc, ApiError) and is_shortage(exc):
        exc = ServerBusy()
    if is_registry(path):
        return _of_registry(exc)
    if not isinstance(exc, ApiError):
        return ErrorAnswer(500, {"Content-Type": JSON_TYPE}, body_of("internal server error", path))
    return ErrorAnswer(exc.code, {"Content-Type": JSON_TYPE, **exc.headers}, body_of(exc.message, path))


def _of_registry(exc: Exception) -> ErrorAnswer:
    known = exc if isinstance(exc, ApiError) else ApiError()
    headers = {"Content-Type": JSON_TYPE, **known.headers, **(CHALLENGE if known.code == 401 else {})}
    return ErrorAnswer(known.code, headers, registry_body(known.code, known.message, exc))


def tell(exc: Exception) -> None:
    """Log an exception of a request: what clients do wrong not at all, what is not meant for them in full."""
    if isinstance(exc, Stopped):  # on request of the operator
        _log.warning("call aborted", error=str(exc))
    elif not isinstance(exc, ApiError):
        _log.error("internal server error", error=str(exc), exc_info=exc)
    elif exc.code >= 500:  # back-pressure, deadlines and functions at fault are nobody's alarm
        log = _log.error if exc.code == 500 else _log.info
        log("api error", code=exc.code, error=exc.message)


def response(exc: Exception, path: str = "") -> Response:
    """Return the same as a whole response."""
    told = answer(exc, path)
    return Response(told.body, told.status, told.headers)


def body_of(message: str, path: str) -> bytes:
    """Return the body of an error for a request to this path."""
    error = {"message": message}
    return escape(msgspec.json.encode(error if path.startswith(OF_V2) else {"error": error})) + b"\n"


def escape(encoded: bytes) -> bytes:
    """JSON that may stand inside HTML: ``<``, ``>`` and ``&`` written as escapes. They only occur within strings."""
    return encoded.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
