"""Remove containers until the Engine confirms it, even if nobody waits any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.aio.background import Background
from hearth.drivers.base import OutOfTime
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import CONFLICT, NOT_FOUND, temporary
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.telemetry.logs import get_logger

#: Seconds after which an operator has to remove a container by hand.
_GIVE_UP_S: Final = 600.0
#: Leftovers removed at the same time: calls need the Engine, too.
_AT_ONCE: Final = 4

_log = get_logger(__name__)


class Remover:
    """Owns every removal, so that one goes on when its caller has left.

    Args:
        engine: The Engine of the containers.
        attempt_s: Seconds for one try; a connection that died unnoticed does not delay the next one.
    """

    def __init__(self, engine: Engine, attempt_s: float) -> None:
        self._engine = engine
        self._attempt_s = attempt_s
        self._leftovers = asyncio.Semaphore(_AT_ONCE)
        self._background = Background()

    def __repr__(self) -> str:
        return f"<Remover {self._background!r}>"

    def remove(self, engine_id: str) -> asyncio.Task[None]:
        """Remove a container with its volumes, running or not. A container that is gone counts as removed."""
        return self._background.start(self._remove(engine_id))

    def abandon(self, making: asyncio.Task[Any] | None, name: str, then: Callable[[], None]) -> None:
        """Remove a container whose creation was given up while the Engine may still create it.

        The removal waits for the answer of the Engine: earlier, it would find no container.
        """
        self._background.start(self._abandon(making, name)).add_done_callback(lambda _: then())

    def clean(self, found: Callable[[], Any]) -> asyncio.Task[bool]:
        """Remove all containers that ``found`` names, several at a time, in the background.

        The result of the task is true if none is left.
        """
        return self._background.start(self._clean(found))

    async def close(self) -> None:
        """Wait for running removals, at most as long as one try takes, then cancel them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._attempt_s):
                await self._background.join()
        await self._background.cancel()

    async def _remove(self, engine_id: str) -> None:
        try:
            with self._engine.span("docker_remove_container"):
                async with asyncio.timeout(_GIVE_UP_S):
                    await self._engine.call("remove", lambda: self._delete(engine_id), self._again)
        except TimeoutError as exc:
            _log.error("container is left behind, remove it by hand", container_id=engine_id)
            raise OutOfTime("remove", _GIVE_UP_S) from exc

    async def _delete(self, engine_id: str) -> None:
        container = self._engine.docker.containers.container(engine_id)
        async with asyncio.timeout(self._attempt_s):
            try:
                await container.delete(force=True, v=True)
            except DockerError as exc:
                if exc.status == CONFLICT:  # another client removes it
                    with contextlib.suppress(DockerError):
                        await container.wait(condition="removed")
                elif exc.status != NOT_FOUND:
                    raise

    @staticmethod
    def _again(exc: Exception) -> bool:
        return temporary(exc) or (isinstance(exc, DockerError) and exc.status >= 500)

    async def _abandon(self, making: asyncio.Task[Any] | None, name: str) -> None:
        if making is None:
            return
        try:
            await asyncio.wait([making], timeout=_GIVE_UP_S)
        finally:
            making.cancel()
        await self._remove(name)

    async def _clean(self, found: Callable[[], Any]) -> bool:
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                names: list[str] = await self._engine.call("list", found)
        except (TimeoutError, *ENGINE_ERRORS) as exc:
            _log.error("containers of an earlier run may be left behind", error=str(exc))
            return False
        if names:
            _log.info("removing containers of an earlier run", containers=len(names))
        ends = await asyncio.gather(*[self._clean_one(name) for name in names], return_exceptions=True)
        return not any(ends)

    async def _clean_one(self, name: str) -> None:
        async with self._leftovers:
            await self._remove(name)
