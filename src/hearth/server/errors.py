"""The only place where an exception becomes HTTP (API specification 1.2)."""

from __future__ import annotations

import dataclasses

import msgspec
from starlette.responses import Response

from hearth.models.errors import ApiError
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)

JSON_TYPE = "application/json; charset=utf-8"


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What a client is told of an error."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(exc: Exception) -> ErrorAnswer:
    """The answer to an exception, which is logged. What is not meant for clients is shown as 500."""
    tell(exc)
    if not isinstance(exc, ApiError):
        return ErrorAnswer(500, {"Content-Type": JSON_TYPE}, _body("internal server error"))
    return ErrorAnswer(exc.code, {"Content-Type": JSON_TYPE, **exc.headers}, _body(exc.message))


def tell(exc: Exception) -> None:
    """Log an exception of a request: what clients do wrong not at all, what is not meant for them in full."""
    if not isinstance(exc, ApiError):
        _log.error("internal server error", error=str(exc), exc_info=exc)
    elif exc.code >= 500:  # back-pressure, deadlines and functions at fault are nobody's alarm
        log = _log.error if exc.code == 500 else _log.info
        log("api error", code=exc.code, error=exc.message)


def response(exc: Exception) -> Response:
    """The same as a whole response."""
    told = answer(exc)
    return Response(told.body, told.status, told.headers)


def _body(message: str) -> bytes:
    return escape(msgspec.json.encode({"error": {"message": message}})) + b"\n"


def escape(encoded: bytes) -> bytes:
    """JSON that may stand inside HTML: ``<``, ``>`` and ``&`` written as escapes. They only occur within strings."""
    return encoded.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
