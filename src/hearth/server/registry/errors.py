"""Errors of the registry, in the form of the OCI distribution specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from hearth.models.errors import ApiError

_CODES: Final[Mapping[int, str]] = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}
#: Clients such as docker send user and password when they are asked for them; the password is a token.
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="hearth"'}


class RegistryError(ApiError):
    """An error of the registry with its status, its code and its headers."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self._status = status
        self._headers = dict(headers or {})
        self.registry_code = code

    @property
    def code(self) -> int:
        """The HTTP status."""
        return self._status

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return self._headers


def body(status: int, message: str, exc: Exception | None = None) -> bytes:
    """Return the body of an error's answer."""
    code = exc.registry_code if isinstance(exc, RegistryError) else _CODES.get(status, "UNKNOWN")
    return msgspec.json.encode({"errors": [{"code": code, "message": message, "detail": None}]})
