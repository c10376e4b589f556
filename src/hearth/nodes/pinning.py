"""Pin the functions of an earlier release, which knew no digests."""

from __future__ import annotations

from hearth.models.errors import HearthError
from hearth.models.image import Resolve, digest_of
from hearth.stores.pins.base import PinStore
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


async def pin_existing(store: PinStore, resolve: Resolve) -> None:
    """Store what the images of functions mean now, where no node has looked yet.

    What is unknown here is pinned once a container has it. If the store fails, the next start tries again.
    """
    digests: dict[str, str] = {}
    pinned = 0
    try:
        for pin in await store.get_unpinned():
            if pin.image not in digests:
                digests[pin.image] = digest_of(pin.image) or await resolve(pin.image)
            digest = digests[pin.image]
            pinned += await store.pin(pin._replace(digest=digest)) and bool(digest)
    except HearthError as exc:
        _log.error("functions of an earlier release not pinned", error=str(exc))
    if pinned:
        _log.info("functions of an earlier release pinned to the images that they run", functions=pinned)
