"""Images that only the Docker Engine of this machine has, for nodes whose functions are processes.

``docker build`` and ``fn deploy --local`` leave an image in the Engine. A node that is asked for a name without a
registry, and has no such image, takes it from there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from hearth.drivers.local.stored import image_store, name_of
from hearth.images.engine_archive import read_archive
from hearth.images.errors import ImageTooLarge
from hearth.images.registry.references import has_registry
from hearth.settings import Settings
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


class EngineImages:
    """Imports images from an Engine, each once for all that wait for it.

    Args:
        settings: Name the Engine, the folder of bundles and the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = image_store(settings.bundles)
        self._imports: dict[str, asyncio.Lock] = {}

    async def fetch(self, image: str) -> None:
        """Import an image, unless it is here, names a registry, or no Engine has it.

        Raises:
            ImageStoreError: It cannot be stored.
        """
        name = name_of(image)
        if not name or "@" in image or has_registry(image) or not self._engine_may_answer:
            return
        lock = self._imports.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                if await asyncio.to_thread(self._store.resolve, name) is None:
                    await self._import(name)
        finally:
            if not lock.locked():
                self._imports.pop(name, None)

    @property
    def _engine_may_answer(self) -> bool:
        """False where there is not even a socket: then no library is loaded to ask."""
        address = urlsplit(self._settings.docker_host)
        return address.scheme != "unix" or Path(address.path).is_socket()

    async def _import(self, name: str) -> None:
        from aiodocker.exceptions import DockerError
        from aiohttp import ClientError

        from hearth.nodes.docker import docker_engine

        await asyncio.to_thread(self._store.make)
        engine = docker_engine(self._settings)
        archive = await asyncio.to_thread(self._store.blobs.begin, 2 * self._settings.image_max_bytes)
        try:
            await engine.docker.images.inspect(name)
            async with engine.docker.images.export_image(name) as stream:
                async for chunk in stream.iter_chunked(1 << 20):
                    await asyncio.to_thread(archive.write, chunk)
            await asyncio.to_thread(archive.suspend)
            path = self._store.blobs.uploads / archive.name
            digest = await asyncio.to_thread(read_archive, self._store, path, name, self._settings.image_max_bytes)
            _log.info("image imported from the docker engine", image=name, digest=digest)
        except ImageTooLarge as exc:
            raise ImageTooLarge(f"{name}: larger than the limit of {self._settings.image_max_bytes} bytes") from exc
        except (DockerError, ClientError, OSError) as exc:
            _log.info("image not imported from the docker engine", image=name, error=str(exc))
        finally:
            await asyncio.to_thread(archive.drop)
            await engine.close()
