"""Images: fetched when a container cannot be made without, one fetch at a time for each."""

from __future__ import annotations

import asyncio
from typing import Final

from aiodocker.exceptions import DockerError

from hearth.clock import pause
from hearth.drivers.base import OutOfTime
from hearth.drivers.docker.credentials import Auth, Credentials
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.pull_errors import PullTrouble, pull_error, retry_after_s, trouble
from hearth.drivers.docker.references import Reference
from hearth.drivers.docker.retries import ENGINE_ERRORS, delays, warn
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: A registry that cannot be reached is tried again for this long only: the name is likely wrong.
_UNREACHABLE_S: Final = 5.0
#: A registry that had too many requests is left alone for longer than one that stumbled.
_TOO_MANY_FIRST_S: Final = 0.5
_TOO_MANY_LONGEST_S: Final = 30.0

_log = get_logger(__name__)


class Images:
    """Fetches images; all who want the same one share the fetch, its waits and its outcome.

    A node has one source of credentials, so an image is always fetched with the same ones: to share by image is to
    share by image and credentials.
    """

    def __init__(self, engine: Engine, credentials: Credentials, limit_s: float) -> None:
        self._engine = engine
        self._credentials = credentials
        self._limit_s = limit_s
        self._pulls: dict[Reference, asyncio.Task[None]] = {}

    async def pull(self, image: str, reference: Reference) -> None:
        """Have the image here.

        Args:
            image: As on the route, for messages.
            reference: What it means.

        Raises:
            ImageNotFound: There is none.
            ImageRefused: The registry does not give it.
            ImageError: It cannot be had for another reason.
            OutOfTime: It took too long.
        """
        pull = self._pulls.get(reference)
        if pull is None:
            pull = self._pulls[reference] = asyncio.get_running_loop().create_task(self._pull(image, reference))
            pull.add_done_callback(lambda done: self._pulled(reference, done))
        with span("docker_pull_image"):
            await asyncio.shield(pull)  # one who gives up does not take the image from the others

    async def close(self) -> None:
        """End the fetches that still run."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        if pulls:
            await asyncio.wait(pulls)

    async def _pull(self, image: str, reference: Reference) -> None:
        _log.info("pulling image", image=str(reference))
        try:
            async with asyncio.timeout(self._limit_s):
                await self._try_until_settled(image, reference)
        except TimeoutError as exc:
            raise OutOfTime("pull", self._limit_s) from exc

    async def _try_until_settled(self, image: str, reference: Reference) -> None:
        with span("docker_auth"):
            auth = await self._credentials.find(reference.registry)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _UNREACHABLE_S
        usual, crowded = delays(), delays(_TOO_MANY_FIRST_S, _TOO_MANY_LONGEST_S)
        tries = 0
        while True:
            try:
                return await self._try(reference, auth)
            except ENGINE_ERRORS as exc:
                status, text = (exc.status, str(exc.message)) if isinstance(exc, DockerError) else (900, str(exc))
                kind = trouble(status, text)
                if kind is PullTrouble.FINAL or (kind is PullTrouble.UNREACHABLE and loop.time() > give_up_at):
                    raise pull_error(image, reference, status, text) from exc
                tries += 1
                warn("pull", tries, exc)
            if kind is PullTrouble.TOO_MANY:
                delay_s = retry_after_s(text) or next(crowded)
            else:
                delay_s = next(usual)
            await pause(self._engine.clock, delay_s)

    async def _try(self, reference: Reference, auth: Auth | None) -> None:
        await self._engine.docker.images.pull(
            reference.name, tag=reference.tag, auth=None if auth is None else auth.as_engine_takes_it()
        )

    def _pulled(self, reference: Reference, pull: asyncio.Task[None]) -> None:
        del self._pulls[reference]
        if not pull.cancelled():
            pull.exception()  # seen, also when all who waited have left
