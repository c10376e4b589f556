"""What the Engine says, as the errors of the drivers' interface (drivers specification 2.4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiodocker.exceptions import DockerError

from hearth.drivers.base import DriverError, DriverUnavailable, OutOfTime, StartFailed

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
#: Texts of a server error that no second try changes.
_PERMANENT: Final = (
    *_IMAGE_FAULTS,
    "invalid reference",
    "no space left",
    "operation not permitted",
    "unknown or invalid runtime",
    "certificate",
)


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
    """The Engine's refusal to make or start a container."""
    if exc.status >= ENGINE_GONE:
        return DriverUnavailable(f"docker daemon: {exc.message}")
    text = str(exc.message)
    lowered = text.lower()
    for fault in _IMAGE_FAULTS:
        if fault in lowered:
            return StartFailed(fault, image_fault=True)
    return StartFailed(text)


def temporary(exc: Exception) -> bool:
    """Whether another try may succeed: the network or the Engine is in trouble, and names no lasting cause."""
    if isinstance(exc, DockerError):
        lowered = str(exc.message).lower()
        return exc.status >= 500 and not any(cause in lowered for cause in _PERMANENT)
    return isinstance(exc, aiohttp.ClientError | OSError)


def gone(exc: Exception) -> bool:
    """Whether the Engine says that there is no such container."""
    return isinstance(exc, DockerError) and exc.status == NOT_FOUND and "no such container" in str(exc.message).lower()
