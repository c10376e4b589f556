"""What the Engine says, as the errors of the drivers' interface (drivers specification 2.4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiodocker.exceptions import DockerError

from hearth.drivers.base import (
    DriverError,
    DriverUnavailable,
    ImageError,
    ImageNotFound,
    ImageRefused,
    OutOfTime,
    StartFailed,
)

#: Texts that say that the image, not the platform, is why a container does not start.
_IMAGE_FAULTS: Final = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
    "no command specified",
)
_UNREACHABLE: Final = ("dial tcp", "no such host", "connection refused", "i/o timeout", "tls handshake", "lookup ")
_ENGINE_GONE: Final = 900  # aiodocker's status for "cannot connect"


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
    if exc.status >= _ENGINE_GONE:
        return DriverUnavailable(f"docker daemon: {exc.message}")
    text = str(exc.message)
    lowered = text.lower()
    for fault in _IMAGE_FAULTS:
        if fault in lowered:
            return StartFailed(fault, image_fault=True)
    return StartFailed(text)


def pull_error(image: str, status: int, text: str) -> DriverError:
    """A pull that failed. What the Engine's text says counts for more than its status."""
    lowered = text.lower()
    if status >= _ENGINE_GONE:
        return DriverUnavailable(f"docker daemon: {text}")
    if "access denied" in lowered or "unauthorized" in lowered:
        # The public registry says the same of what is private and of what does not exist.
        return ImageRefused(image, 404 if "does not exist" in lowered else 401, text)
    if any(sign in lowered for sign in ("not found", "manifest unknown", "does not exist")):
        return ImageNotFound(image, text)
    if any(sign in lowered for sign in _UNREACHABLE):
        return ImageError(image, text, 502)
    if status in (401, 403, 404):
        return ImageRefused(image, status, text)
    return ImageError(image, text)
