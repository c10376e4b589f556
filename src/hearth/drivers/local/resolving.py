"""The digests that references mean in a data folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hearth.drivers.local import stored
from hearth.images.errors import ImageStoreError
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


async def resolve(bundles: Path, image: str) -> str:
    """Return the digest that a reference means now; empty if there is no such image, or the store cannot be read."""
    try:
        return await asyncio.to_thread(stored.digest, bundles, image) or ""
    except (OSError, ImageStoreError) as exc:
        _log.warning("digest of an image not found out", image=image, error=str(exc))
        return ""
