"""Pull missing images, each once at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from aiodocker.exceptions import DockerError

from hearth.aio.background import Background
from hearth.aio.clock import pause
from hearth.drivers.base import PULL, FindLogin, ImageError, ImageRefused, OutOfTime
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import phase
from hearth.drivers.docker.private_images import PrivateImages
from hearth.drivers.docker.pull_errors import PullTrouble, pull_error, retry_after_s, trouble
from hearth.drivers.docker.retries import ENGINE_ERRORS, delays, warn
from hearth.drivers.logins import Logins
from hearth.images.registry.credentials import Auth, Credentials
from hearth.images.registry.references import InvalidReference, Reference, parse, refusal
from hearth.models.registry_login import RegistryLogin
from hearth.telemetry.logs import get_logger

#: An unreachable registry is tried again for this long only: its name is probably wrong.
_UNREACHABLE_S: Final = 5.0
#: A registry that answered "too many requests" gets longer pauses than one that failed for a moment.
_TOO_MANY_FIRST_S: Final = 0.5
_TOO_MANY_LONGEST_S: Final = 30.0

#: Seconds for the Engine's answers about a container and its image.
_INSPECT_S: Final = 30.0

#: An image, and the login of the app that it is pulled for.
_Wanted = tuple[Reference, RegistryLogin | None]

_log = get_logger(__name__)


class Images:
    """Pulls images; everybody who needs the same image with the same login shares its pull and the outcome.

    An app that has stored a login at a registry uses that, and no other app does. The other apps use the node's.

    Args:
        engine: The Engine that gets the images.
        credentials: The credentials of the node.
        limit_s: Seconds for a pull.
        notes: The folder where private images are noted; ``None`` notes them for the life of the process.
        registries: Those that may be asked; empty: all.
    """

    def __init__(
        self,
        engine: Engine,
        credentials: Credentials,
        limit_s: float,
        notes: Path | None = None,
        registries: Collection[str] = (),
    ) -> None:
        self._engine = engine
        self._logins = Logins(credentials, limit_s)
        self._private = PrivateImages(engine, self._logins, notes)
        self._limit_s = limit_s
        self._registries = registries
        self._pulls: dict[_Wanted, asyncio.Task[None]] = {}
        self._background = Background()

    async def pull(self, image: str, reference: Reference, find_login: FindLogin | None = None) -> None:
        """Pull an image, or wait for a pull of it that already runs.

        Args:
            image: As on the route, for messages.
            reference: What it means.
            find_login: Finds the login of the app that it is for.

        Raises:
            ImageNotFound: The image does not exist.
            ImageRefused: The registry refuses access, or may not be asked.
            ImageError: The pull failed for another reason.
            OutOfTime: The pull took too long.
        """
        if reason := refusal(reference, self._registries):
            raise ImageRefused(image, 403, reason)
        login = None if find_login is None else await self._logins.of_app(image, reference.registry, find_login)
        wanted = (reference, login)
        pull = self._pulls.get(wanted)
        if pull is None:
            pull = self._pulls[wanted] = self._background.start(self._pull(image, reference, login))
            pull.add_done_callback(lambda _: self._pulls.pop(wanted))
        with self._engine.span("docker_pull_image"):
            await asyncio.shield(pull)  # a cancelled caller does not cancel the pull for the others

    async def close(self) -> None:
        """Cancel the pulls that still run."""
        await self._background.cancel()

    async def check_right(
        self, image: str, reference: Reference, container_id: str, find_login: FindLogin | None
    ) -> None:
        """Check that an app may run the image of its container, if the image was pulled with the login of an app.

        Raises:
            ImageRefused: The registry refuses the image to it.
            ImageError: The registry cannot be asked.
        """
        pulls = {wanted[0]: pull for wanted, pull in self._pulls.items() if wanted[1] is not None}
        if not pulls and not await self._private.is_any():
            return
        async with phase("create", _INSPECT_S):
            made = await self._engine.call("inspect", lambda: self._engine.docker.containers.get(container_id))
            image_id = str(made["Image"])
            waits = await self._not_noted(image_id, pulls)
        if waits:
            await asyncio.wait(waits)
        await self._private.check(image, reference, image_id, find_login)

    async def _not_noted(
        self, image_id: str, pulls: Mapping[Reference, asyncio.Task[None]]
    ) -> list[asyncio.Task[None]]:
        """Return the pulls that may have brought this image and have not noted it yet."""
        if not pulls:
            return []
        found = await self._engine.call("inspect", lambda: self._engine.docker.images.inspect(image_id))
        names = set[tuple[str, str]]()
        for text in (*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())):
            with contextlib.suppress(InvalidReference):
                name = parse(text)
                names.add((name.registry, name.path))
        return [pull for name, pull in pulls.items() if (name.registry, name.path) in names]

    async def _pull(self, image: str, reference: Reference, login: RegistryLogin | None) -> None:
        _log.info("pulling image", image=str(reference))
        try:
            async with asyncio.timeout(self._limit_s):
                await self._try_until_settled(image, reference, login)
                if login is not None:
                    await self._private.note(reference, login)
        except TimeoutError as exc:
            raise OutOfTime(PULL, self._limit_s) from exc
        except ENGINE_ERRORS as exc:
            raise ImageError(image, f"cannot note that it is private: {exc}") from exc

    async def _try_until_settled(self, image: str, reference: Reference, login: RegistryLogin | None) -> None:
        with self._engine.span("docker_auth"):
            auth = await self._logins.auth(reference.registry, login)
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
