"""Wait for containers whose image has a health check."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from hearth.drivers.base import Exit, StartFailed

_LOOK_EVERY_S: Final = 0.1


def has_check(shown: Mapping[str, Any]) -> bool:
    """Return whether the image has a health check, according to the inspected container."""
    test: list[str] | None = ((shown.get("Config") or {}).get("Healthcheck") or {}).get("Test")
    return test is not None and test[:1] not in ([], ["NONE"])


async def until_healthy(look: Any, ended: asyncio.Future[Exit]) -> None:
    """Wait until the container is healthy.

    Args:
        look: Shows the container as the Engine sees it now.
        ended: Done when it has ended.

    Raises:
        StartFailed: It is unhealthy, or it ended.
    """
    while True:
        if ended.done():
            raise StartFailed(f"exit code {ended.result().code} before it was healthy", image_fault=True)
        state = (await look())["State"]
        status = (state.get("Health") or {}).get("Status")
        if status == "healthy":
            return
        if status == "unhealthy" and state.get("Running"):  # the Engine calls one that has ended unhealthy, too
            raise StartFailed("its health check fails", image_fault=True)
        await asyncio.wait([ended], timeout=_LOOK_EVERY_S)
