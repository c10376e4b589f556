"""Images: fetched when a container cannot be made without, one fetch at a time for each."""

from __future__ import annotations

import asyncio
from typing import Final

import aiodocker
from aiodocker.exceptions import DockerError

from hearth.drivers.base import OutOfTime
from hearth.drivers.docker.errors import pull_error
from hearth.telemetry.logs import get_logger

_DEFAULT_TAG: Final = "latest"

_log = get_logger(__name__)


class Images:
    """Fetches images; all who want the same one share the fetch and its outcome."""

    def __init__(self, docker: aiodocker.Docker, limit_s: float) -> None:
        self._docker = docker
        self._limit_s = limit_s
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def pull(self, image: str) -> None:
        """Have the image here.

        Raises:
            ImageNotFound: There is none.
            ImageRefused: The registry does not give it.
            ImageError: It cannot be had for another reason.
            OutOfTime: It took too long.
        """
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = asyncio.get_running_loop().create_task(self._pull(image))
            pull.add_done_callback(lambda done: self._pulled(image, done))
        await asyncio.shield(pull)  # one who gives up does not take the image from the others

    async def close(self) -> None:
        """End the fetches that still run."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        if pulls:
            await asyncio.wait(pulls)

    async def _pull(self, image: str) -> None:
        _log.info("pulling image", image=image)
        name, tag = split(image)
        try:
            async with asyncio.timeout(self._limit_s):
                await self._docker.images.pull(name, tag=tag)
        except TimeoutError as exc:
            raise OutOfTime("pull", self._limit_s) from exc
        except DockerError as exc:
            raise pull_error(image, exc.status, str(exc.message)) from exc

    def _pulled(self, image: str, pull: asyncio.Task[None]) -> None:
        del self._pulls[image]
        if not pull.cancelled():
            pull.exception()  # seen, also when all who waited have left


def split(image: str) -> tuple[str, str | None]:
    """Name and tag of a reference; a digest stays with the name, and takes the place of a tag."""
    if "@" in image:
        return image, None
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:  # that colon was a registry's port
        return image, _DEFAULT_TAG
    return name, tag
