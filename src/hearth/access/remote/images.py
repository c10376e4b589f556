"""Images of a runner: pulled from its API node when a container needs one that is not here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp

from hearth.access.remote.client import ApiClient
from hearth.aio.clock import Clock, pause
from hearth.drivers.local import stored
from hearth.images.documents import Descriptor, Index, digest_of_bytes, read_manifest
from hearth.images.layout import ImageStore, choose_platform
from hearth.models.errors import ApiError, ApiNodeAway
from hearth.telemetry.logs import get_logger

#: Attempts to go on with a blob after its connection broke.
_ATTEMPTS: Final = 6
_BACK_OFF_S: Final = 0.2

_log = get_logger(__name__)


class RemoteImages:
    """Pulls images from an API node, each once for all that wait for it.

    Args:
        client: Of the API node.
        clock: Waits between attempts.
        bundles: The folder of bundles of this runner; the store is beside it.
    """

    def __init__(self, client: ApiClient, clock: Clock, bundles: Path) -> None:
        self._client = client
        self._clock = clock
        self._bundles = bundles
        self._pulls: dict[str, tuple[asyncio.Lock, int]] = {}

    async def fetch(self, image: str) -> None:
        """Get what a reference means on the API node, unless it is here or the API node has none.

        Raises:
            ApiError: The API node does not answer, or refuses.
            ImageStoreError: The image cannot be stored.
        """
        async with self._alone(image):
            store = await asyncio.to_thread(stored.image_store, self._bundles)
            if await asyncio.to_thread(stored.is_pinned_here, self._bundles, image):
                return
            await asyncio.to_thread(store.make)
            await self._pull(store, image, [stored.name_of(image)])

    async def _pull(self, store: ImageStore, image: str, names: list[str]) -> None:
        try:
            data = await self._client.ask("GET", f"runner/images?image={quote(image, safe='')}", bytes)
        except ApiError as exc:
            if exc.code == 404:
                return
            raise
        digest = digest_of_bytes(data)
        if await asyncio.to_thread(store.blobs.renew, digest) is None:
            _log.info("pulling image from the API node", image=image, digest=digest)
        document = read_manifest(data, image)
        if isinstance(document, Index):
            name = image.partition("@")[0]
            await self._pull(store, f"{name}@{choose_platform(document, image)}", names)
            return
        for blob in document.blobs:
            if await asyncio.to_thread(store.blobs.renew, blob.digest) is None:
                await self._download(store, blob)
        await asyncio.to_thread(store.put_manifest, data, names)

    async def _download(self, store: ImageStore, blob: Descriptor) -> None:
        """Get a blob; what came before a connection broke is not asked for again."""
        upload = await asyncio.to_thread(store.blobs.begin, blob.size)
        path = f"runner/blobs?digest={quote(blob.digest, safe='')}"
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    async for data in self._client.download(path, upload.size):
                        await asyncio.to_thread(upload.write, data)
                except (aiohttp.ClientError, OSError, TimeoutError) as exc:
                    _log.info("download of a blob broke off", digest=blob.digest, bytes=upload.size, error=str(exc))
                if upload.size == blob.size:
                    break
                await pause(self._clock, _BACK_OFF_S * 2**attempt)
            else:
                raise ApiNodeAway
            await asyncio.to_thread(upload.commit, blob.digest)
        finally:
            await asyncio.to_thread(upload.drop_unless_done)

    @contextlib.asynccontextmanager
    async def _alone(self, image: str) -> AsyncIterator[None]:
        """Let one caller per image through at once."""
        lock, waiting = self._pulls.get(image, (asyncio.Lock(), 0))
        self._pulls[image] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._pulls.pop(image)
            if waiting > 1:
                self._pulls[image] = lock, waiting - 1
