"""Images for runners: what a reference means on this node, and the blobs of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.responses import Response

from hearth.drivers.local import stored
from hearth.images.errors import BlobNotFound
from hearth.models.errors import NotFound
from hearth.server.api_v1.request import ApiRequest
from hearth.server.registry.downloads import blob_answer


class ImageUnknown(NotFound):
    """The node has no such image."""

    message = "Image not found"


class RunnerImages:
    """Serves the images of a data folder to runners.

    Args:
        bundles: The folder of bundles.
    """

    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles

    async def image(self, request: ApiRequest) -> Response:
        """Return the manifest that the reference ``image`` means now."""
        store = stored.image_store(self._bundles)
        reference = request.query("image")

        def work() -> bytes | None:
            digest = stored.resolve(store, reference)
            return None if digest is None else store.blobs.read_document(digest)

        if (data := await asyncio.to_thread(work)) is None:
            raise ImageUnknown
        return Response(data, headers={"Content-Type": "application/octet-stream"})

    async def blob(self, request: ApiRequest) -> Response:
        """Return the blob ``digest``, or the part of it that is asked for."""
        store = stored.image_store(self._bundles)
        digest = request.query("digest")
        try:
            size = await asyncio.to_thread(store.blobs.renew, digest)
            if size is None:
                raise ImageUnknown
            return await blob_answer(store, digest, size, request.http.headers.get("range", ""))
        except BlobNotFound as exc:
            raise ImageUnknown from exc
