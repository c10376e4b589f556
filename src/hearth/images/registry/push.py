"""Push images of a store to registries: what they lack, the manifest last."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

from hearth.images.documents import Descriptor
from hearth.images.layout import ImageStore
from hearth.images.registry.client import Repository

_PIECE = 1 << 20


async def push(store: ImageStore, digest: str, repository: Repository, tag: str) -> int:
    """Push an image; return the bytes of the blobs that were sent.

    Of an index, the image for this machine is pushed.

    Raises:
        ImageStoreError: The image is not whole, or the registry does not take it.
    """
    image = await asyncio.to_thread(store.image, digest)
    document = await asyncio.to_thread(store.blobs.read_document, image.digest)
    sent = 0
    for blob in image.manifest.blobs:
        if not await repository.has(blob.digest):
            await repository.upload(blob, functools.partial(_pieces, store, blob))
            sent += blob.size
    await repository.put_manifest(tag, document, image.manifest.media_type)
    return sent


async def _pieces(store: ImageStore, blob: Descriptor) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(store.blobs.open, blob.digest) as file:
        while data := await asyncio.to_thread(file.read, _PIECE):
            yield data
