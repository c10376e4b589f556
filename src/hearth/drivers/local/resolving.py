"""The digests that references mean: in the image store of a data folder, or at their registry."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hearth.drivers.local import stored
from hearth.images.errors import ImageStoreError
from hearth.images.registry.pull import Pulls
from hearth.images.registry.references import InvalidReference
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


class Resolver:
    """Finds out what references mean.

    Args:
        bundles: The folder of bundles; the store is beside it.
        pulls: Asks registries.
    """

    def __init__(self, bundles: Path, pulls: Pulls) -> None:
        self._bundles = bundles
        self._pulls = pulls

    async def resolve(self, image: str) -> str:
        """Return the digest that a reference means now; empty if that is unknown."""
        try:
            if await asyncio.to_thread(stored.is_of_registry, self._bundles, image):
                return await self._pulls.digest(image)
            return await asyncio.to_thread(stored.digest, self._bundles, image) or ""
        except (OSError, ImageStoreError, InvalidReference) as exc:
            _log.warning("digest of an image not found out", image=image, error=str(exc))
            return ""
