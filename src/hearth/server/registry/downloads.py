"""Blobs as answers: whole or in part, piece by piece."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from starlette.responses import Response, StreamingResponse

from hearth.images.layout import ImageStore
from hearth.server.registry.errors import RegistryError

#: Bytes that a thread reads at once.
_PIECE: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)


def headers_of(digest: str) -> dict[str, str]:
    """Return the headers of the answer with a blob."""
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
    }


async def blob_answer(store: ImageStore, digest: str, size: int, asked: str) -> Response:
    """Return the answer with a blob.

    Args:
        store: Has it.
        digest: Its digest.
        size: Its size.
        asked: The header ``Range``; one that asks for several parts is ignored.

    Raises:
        BlobNotFound: It was collected meanwhile.
        RegistryError: The range is not in the blob.
    """
    headers, first, end, status = headers_of(digest), 0, size, 200
    if (match := _RANGE.fullmatch(asked.strip())) is not None:
        first = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
        if first >= size or end <= first:
            message = f"{asked}: the blob has {size} bytes"
            raise RegistryError(416, "SIZE_INVALID", message, {"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    file = await asyncio.to_thread(store.blobs.open, digest)
    headers["Content-Length"] = str(end - first)
    return StreamingResponse(_pieces(file, first, end), status, headers)


async def _pieces(file: BinaryIO, first: int, end: int) -> AsyncIterator[bytes]:
    try:
        await asyncio.to_thread(file.seek, first)
        while first < end and (data := await asyncio.to_thread(file.read, min(_PIECE, end - first))):
            first += len(data)
            yield data
    finally:
        file.close()
