"""Find the cause of a failed pull in the Engine's message, which says more than its status."""

from __future__ import annotations

import enum
import re
from typing import Final

from hearth.drivers.base import DriverError, DriverUnavailable, ImageError, ImageNotFound, ImageRefused
from hearth.drivers.docker.errors import ENGINE_GONE
from hearth.images.registry.references import Reference

_NO_SUCH_IMAGE: Final = ("not found", "manifest unknown", "does not exist", "name unknown")
_NO_CREDENTIALS: Final = ("access denied", "unauthorized", "authentication required", "no basic auth credentials")
_FORBIDDEN: Final = ("denied", "forbidden")
_TOO_MANY: Final = ("toomanyrequests", "too many requests", "http 429", "http status: 429")
_UNREACHABLE: Final = (
    "dial tcp",
    "no such host",
    "connection refused",
    "no route to host",
    "i/o timeout",
    "client.timeout exceeded",
    "tls handshake",
    "server gave http response to https client",
    "lookup ",
)
_PASSING: Final = ("eof", "connection reset", "broken pipe", "timeout", "unexpected http status: 5")
_LASTING: Final = ("no space left", "invalid reference", "no matching manifest", "certificate", "unsupported")
#: Registries repeat their Retry-After in the text, as a Go duration or in seconds; the header ends at the Engine.
_RETRY_AFTER: Final = re.compile(r"retry-after: *([0-9.]+) *(ms|µs|us|ns|s|m|h)?", re.IGNORECASE)
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class PullTrouble(enum.Enum):
    """The chance that another try succeeds."""

    FINAL = "final"  # nothing
    PASSING = "passing"  # the registry or the Engine may recover
    TOO_MANY = "too many requests"  # the registry wants to be left alone for a while
    UNREACHABLE = "unreachable"  # no answer: sometimes a short outage, mostly a misspelled name


def trouble(status: int, text: str) -> PullTrouble:
    """Judge a failed pull. A status of 0 means that the pull began and failed later."""
    lowered = text.lower()

    def says(signs: tuple[str, ...]) -> bool:
        return any(sign in lowered for sign in signs)

    if status >= ENGINE_GONE:
        return PullTrouble.PASSING
    if status == 429 or says(_TOO_MANY):
        return PullTrouble.TOO_MANY
    if 400 <= status < 500 or says(_LASTING):
        return PullTrouble.FINAL
    if says(_UNREACHABLE):
        return PullTrouble.UNREACHABLE
    if says((*_NO_SUCH_IMAGE, *_NO_CREDENTIALS, *_FORBIDDEN)):
        return PullTrouble.FINAL
    return PullTrouble.PASSING if status >= 500 or says(_PASSING) else PullTrouble.FINAL


def retry_after_s(text: str) -> float | None:
    """Return the seconds that the registry asks to wait, if it does."""
    found = _RETRY_AFTER.search(text)
    return None if found is None else float(found[1]) * _UNITS[(found[2] or "s").lower()]


def pull_error(image: str, reference: Reference, status: int, text: str) -> DriverError:
    """Return the error that a failed pull is for the agent."""
    lowered = text.lower()
    if status >= ENGINE_GONE:
        return DriverUnavailable(f"docker daemon: {text}")
    if any(sign in lowered for sign in _UNREACHABLE):
        return ImageError(image, f"registry {reference.registry} cannot be reached: {text}", 502)
    if any(sign in lowered for sign in _NO_CREDENTIALS):
        # The public registry says the same of what is private and of what does not exist.
        return ImageRefused(image, 404 if "does not exist" in lowered else 401, text)
    if any(sign in lowered for sign in _NO_SUCH_IMAGE):
        return ImageNotFound(image, text)
    if any(sign in lowered for sign in _FORBIDDEN):
        return ImageRefused(image, 403, text)
    if status in (401, 403, 404):
        return ImageRefused(image, status, text)
    return ImageError(image, text)
