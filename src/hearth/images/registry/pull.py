"""Pull images from registries into a store, each once for all that wait for it.

The manifest comes first, then the configuration; what cannot run here is refused before its layers are downloaded.
Blobs that the store has are not asked for. The image is named last: what broke off leaves blobs that nothing names; the
next attempt uses them, or collection removes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final, Protocol

from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.images.blobs import Upload
from hearth.images.documents import (
    LAYER_TYPES,
    MAX_DOCUMENT_BYTES,
    Config,
    Descriptor,
    Index,
    Manifest,
    digest_of_bytes,
    is_digest,
    read_config,
    read_manifest,
)
from hearth.images.errors import ImageStoreError, ImageTooLarge, InvalidImage, RegistryNotAllowed, WrongDigest
from hearth.images.layout import Image, ImageStore, choose_platform
from hearth.images.registry.credentials import Auth, Credentials
from hearth.images.registry.references import Reference, parse, refusal
from hearth.models.registry_login import RegistryLogin
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Seconds for the digest of a tag: a deploy waits for it.
_RESOLVE_S: Final = 10.0

#: Refuses an image that cannot run here, by raising ``InvalidImage``.
Check = Callable[[Image], object]
_Wanted = tuple[Reference, RegistryLogin | None]

_log = get_logger(__name__)


class Pulls:
    """Pulls images.

    Args:
        store: Gets them.
        credentials: The node's own, for apps that have stored no login.
        clock: Waits between attempts.
        most_bytes: The most that the layers of an image may have together, as they are transferred.
        limit_s: Seconds for a pull.
        check: Refuses what cannot run here.
        metrics: Count pulled bytes.
        registries: Those that may be asked; empty: all.
    """

    def __init__(
        self,
        store: ImageStore,
        credentials: Credentials,
        clock: Clock,
        *,
        most_bytes: int,
        limit_s: float = 600.0,
        check: Check = lambda image: None,
        metrics: Metrics | None = None,
        registries: Collection[str] = (),
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._clock = clock
        self._most_bytes = most_bytes
        self._limit_s = limit_s
        self._check = check
        self._registries = registries
        self._bytes = (metrics or Metrics()).counter("hearth_image_bytes_pulled")
        self._pulls: dict[_Wanted, asyncio.Task[str]] = {}
        self._background = Background()

    async def close(self) -> None:
        """Cancel the pulls that still run."""
        await self._background.cancel()

    async def pull(self, image: str, login: RegistryLogin | None = None) -> str:
        """Pull an image, or wait for a pull of it that already runs; return the digest of its reference.

        An image that needs the login of an app gets no name in the store: its digest opens it to those who know that.

        Args:
            image: A reference with a registry.
            login: That of the app that it is for; ``None``: the node's own credentials.

        Raises:
            ImageStoreError: It was not pulled; the text names the reference and the cause.
            InvalidReference: The reference is malformed.
            TimeoutError: The pull took too long.
        """
        wanted = (self._parse(image), login)
        pull = self._pulls.get(wanted)
        if pull is None:
            pull = self._pulls[wanted] = self._background.start(self._pull(image, *wanted))
            pull.add_done_callback(lambda _: self._pulls.pop(wanted))
        return await asyncio.shield(pull)  # a cancelled caller does not cancel the pull for the others

    async def digest(self, image: str) -> str:
        """Return what a reference means at its registry now; empty if that cannot be found out soon.

        Raises:
            InvalidReference: The reference is malformed.
        """
        from hearth.images.registry.client import Repository, new_session

        try:
            reference = self._parse(image)
            async with asyncio.timeout(_RESOLVE_S), new_session() as session:
                auth = await self._credentials.find(reference.registry)
                repository = Repository(session, image, reference, auth, self._clock, is_patient=False)
                found = await repository.digest(str(reference.tag))
        except (ImageStoreError, TimeoutError) as exc:
            _log.info("image not resolved", image=image, error=str(exc) or "no answer")
            return ""
        return found if is_digest(found) else ""

    def _parse(self, image: str) -> Reference:
        """Return what a reference means.

        Raises:
            RegistryNotAllowed: Its registry may not be asked.
            InvalidReference: The reference is malformed.
        """
        reference = parse(image)
        if reason := refusal(reference, self._registries):
            raise RegistryNotAllowed(image, reason)
        return reference

    async def _pull(self, image: str, reference: Reference, login: RegistryLogin | None) -> str:
        from hearth.images.registry.client import Repository, new_session  # aiohttp: 8 MiB, for those who pull

        if login is None:
            auth = await self._credentials.find(reference.registry)
        else:
            auth = Auth(login.username, login.password)
        name = "" if login is not None or reference.tag is None else _name(image)
        await asyncio.to_thread(self._store.make)
        async with asyncio.timeout(self._limit_s), new_session() as session:
            return await self._get(Repository(session, image, reference, auth, self._clock), image, reference, name)

    async def _get(self, source: Source, image: str, reference: Reference, name: str) -> str:
        """Get an image, and give it a name unless that is empty; return the digest of the reference."""
        _log.info("pulling image", image=image)
        digest, document, data = await _document(source, image, reference.digest or str(reference.tag))
        meant, index = digest, (b"", "")
        if isinstance(document, Index):
            meant, index = choose_platform(document, image), (data, document.media_type)
            _, document, data = await _document(source, image, meant)
            if isinstance(document, Index):
                raise InvalidImage(f"{image}: {meant} is an index within an index")
        if (size := sum(layer.size for layer in document.layers)) > self._most_bytes:
            raise ImageTooLarge(f"{image}: {size} bytes of layers; the limit is {self._most_bytes}")
        if unknown := [layer.media_type for layer in document.layers if layer.media_type not in LAYER_TYPES]:
            raise InvalidImage(f"{image}: unknown media type {unknown[0]!r} of a layer")
        if document.config.size > MAX_DOCUMENT_BYTES:
            raise InvalidImage(f"{image}: a configuration of {document.config.size} bytes")
        pulled = await self._blob(source, image, document.config)
        config = await asyncio.to_thread(self._config, document, image)
        self._check(Image(digest=meant, manifest=document, config=config))
        for layer in document.layers:
            pulled += await self._blob(source, image, layer)
        await asyncio.to_thread(self._put, digest, index, data, document.media_type, [name] if name else [])
        _log.info("image pulled", image=image, digest=digest, bytes=pulled)
        return digest

    async def _blob(self, source: Source, image: str, blob: Descriptor) -> int:
        """Get a blob unless it is there; return the bytes that were transferred."""
        if await asyncio.to_thread(self._store.blobs.renew, blob.digest) is not None:
            return 0
        upload = await asyncio.to_thread(self._store.blobs.begin, blob.size)
        try:
            await source.download(blob, upload)
            await asyncio.to_thread(upload.commit, blob.digest)
        except WrongDigest as exc:
            raise InvalidImage(f"{image}: {exc}") from exc
        finally:
            await asyncio.to_thread(upload.drop_unless_done)
        self._bytes.add(blob.size)
        return blob.size

    def _config(self, document: Manifest, image: str) -> Config:
        return read_config(self._store.blobs.read_document(document.config.digest), image)

    def _put(self, digest: str, index: tuple[bytes, str], manifest: bytes, media_type: str, names: list[str]) -> None:
        """Store the manifest and name it, or the index that it is of. The images of other platforms are not here."""
        data, index_type = index
        self._store.put_manifest(manifest, [] if data else names, media_type)
        if data:
            self._store.blobs.add(data)
            self._store.name(Descriptor(media_type=index_type, digest=digest, size=len(data)), names)


class Source(Protocol):
    """A repository of a registry: see :class:`~hearth.images.registry.client.Repository`."""

    async def manifest(self, reference: str) -> tuple[bytes, str]:
        """Return the bytes of a manifest, and the media type that the registry states."""

    async def download(self, blob: Descriptor, upload: Upload) -> None:
        """Write a blob into an upload."""


async def _document(source: Source, image: str, reference: str) -> tuple[str, Manifest | Index, bytes]:
    """Return a manifest with its digest, which is the one that was asked for."""
    data, media_type = await source.manifest(reference)
    digest = digest_of_bytes(data)
    if is_digest(reference) and digest != reference:
        raise InvalidImage(f"{image}: the registry sends {digest} for {reference}")
    return digest, read_manifest(data, image, media_type), data


def _name(image: str) -> str:
    """Return the name of a reference in a store: with its tag."""
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"
