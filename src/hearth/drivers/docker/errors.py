"""Convert the Engine's errors to those of the drivers' interface (drivers specification 2.4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiodocker.exceptions import DockerError

from hearth.drivers.base import DriverError, DriverUnavailable, OutOfTime, StartFailed
from hearth.telemetry.logs import get_logger
from hearth.telemetry.redaction import redact

NOT_FOUND: Final = 404
CONFLICT: Final = 409
#: The library's status for "cannot connect".
ENGINE_GONE: Final = 900

#: Texts that say that the image, not the platform, is why a container does not start.
_IMAGE_FAULTS: Final = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
    "no command specified",
)
#: Texts that say that the function's settings are why, each with the reason for the client. What the Engine says after
#: them may be a secret: the value of a variable.
_SETTING_FAULTS: Final = {
    "invalid environment variable": "invalid environment variable in the config",
    "environment variable value can't contain null": "NUL character in an environment variable of the config",
    "environment variable name can't contain null": "NUL character in an environment variable of the config",
    "argument list too long": "the environment (config and call) is too large",
    "minimum memory limit": "the memory limit is too low",
    "memory limit too low": "the memory limit is too low",
}
#: Texts of a server error that no second try changes.
_PERMANENT: Final = (
    *_IMAGE_FAULTS,
    *_SETTING_FAULTS,
    "error during container init",
    "invalid reference",
    "no space left",
    "operation not permitted",
    "unknown or invalid runtime",
    "certificate",
)


_log = get_logger(__name__)


@contextlib.asynccontextmanager
async def phase(name: str, limit_s: float) -> AsyncIterator[None]:
    """One phase of a container's life: bounded, and with errors of ours.

    Raises:
        OutOfTime: It took longer than its limit.
        DriverUnavailable: The Engine is gone.
        StartFailed: It refused.
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as exc:
        raise OutOfTime(name, limit_s) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise DriverUnavailable(f"docker daemon: {exc}") from exc
    except DockerError as exc:
        raise refused(exc) from exc


def refused(exc: DockerError) -> DriverError:
    """Return the Engine's refusal to create or start a container as an error of ours; log the Engine's own words."""
    if exc.status >= ENGINE_GONE:
        return DriverUnavailable(f"docker daemon: {exc.message}")
    text = redact(str(exc.message))  # it may quote the request, which contains secrets
    lowered = text.lower()
    for fault, reason in _SETTING_FAULTS.items():
        if (position := lowered.find(fault)) >= 0:
            _log.warning("docker engine refuses a container", status=exc.status, error=text[: position + len(fault)])
            return StartFailed(reason, image_fault=True)
    for fault in _IMAGE_FAULTS:
        if fault in lowered:
            _log.warning("docker engine cannot run an image", status=exc.status, error=text)
            return StartFailed(fault, image_fault=True)
    return StartFailed(text)


def temporary(exc: Exception) -> bool:
    """Return whether another try may succeed: the network or the Engine failed, without a permanent cause."""
    if isinstance(exc, DockerError):
        lowered = str(exc.message).lower()
        return exc.status >= 500 and not any(cause in lowered for cause in _PERMANENT)
    return isinstance(exc, aiohttp.ClientError | OSError)


def gone(exc: Exception) -> bool:
    """Return whether the Engine answered that there is no such container."""
    return isinstance(exc, DockerError) and exc.status == NOT_FOUND and "no such container" in str(exc.message).lower()
