"""Removing containers until they are really gone, whoever still waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.drivers.base import OutOfTime
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import CONFLICT, NOT_FOUND, temporary
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: After so long a container that cannot be removed needs a person.
_GIVE_UP_S: Final = 600.0
#: Leftovers are removed so many at a time: the Engine is needed for calls, too.
_AT_ONCE: Final = 4

_log = get_logger(__name__)


class Remover:
    """Owns every removal, so that one goes on when its caller has left.

    Args:
        engine: Whose containers.
        attempt_s: How long one try may take; a connection that died unnoticed does not hold up the next one.
    """

    def __init__(self, engine: Engine, attempt_s: float) -> None:
        self._engine = engine
        self._attempt_s = attempt_s
        self._leftovers = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Remover pending={len(self._tasks)}>"

    def remove(self, engine_id: str) -> asyncio.Task[None]:
        """Remove a container with its volumes, running or not; that it is gone already is success."""
        return self._own(self._remove(engine_id))

    def abandon(self, making: asyncio.Task[Any] | None, name: str, then: Callable[[], None]) -> None:
        """Remove a container whose maker has left while the Engine may still be making it.

        It is removed after the Engine has answered: before, it would not be found, and then be made all the same.
        """
        self._own(self._abandon(making, name)).add_done_callback(lambda _: then())

    def clean(self, found: Callable[[], Any]) -> None:
        """Remove all containers that ``found`` names, several at a time, in the background."""
        self._own(self._clean(found))

    async def close(self) -> None:
        """Give what is under way one more try's time, then end it."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._attempt_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _own(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also when all who waited have left

    async def _remove(self, engine_id: str) -> None:
        try:
            with span("docker_remove_container"):
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
                if exc.status == CONFLICT:  # somebody else removes it
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

    async def _clean(self, found: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                names: list[str] = await self._engine.call("list", found)
        except (TimeoutError, *ENGINE_ERRORS) as exc:
            _log.error("containers of an earlier run may be left behind", error=str(exc))
            return
        if names:
            _log.info("removing containers of an earlier run", containers=len(names))
        await asyncio.gather(*[self._clean_one(name) for name in names], return_exceptions=True)

    async def _clean_one(self, name: str) -> None:
        async with self._leftovers:
            await self._remove(name)
