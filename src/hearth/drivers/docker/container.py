"""One container of the Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from hearth.drivers.base import ByteReader, ByteWriter, Container, Exit, PhaseLimits, StatsSample
from hearth.drivers.docker.errors import phase
from hearth.drivers.docker.stats import samples
from hearth.drivers.docker.streams import Attachment, attach
from hearth.drivers.streams import StreamBuffer

#: Output that has not arrived this long after the exit will not.
_DRAIN_S: Final = 2.0
_GONE: Final = 404
_BEING_REMOVED: Final = 409


class EngineContainer(Container):
    """Made by the Engine, attached before it starts.

    stdin and stdout share one connection, stderr has its own: a slow reader of the answer does not hold up the log.
    """

    stdin: ByteWriter
    stdout: ByteReader
    stderr: ByteReader

    def __init__(
        self,
        docker: aiodocker.Docker,
        host: str,
        container: DockerContainer,
        container_id: str,
        limits: PhaseLimits,
    ) -> None:
        self.id = container_id
        self._docker = docker
        self._host = host
        self._container = container
        self._limits = limits
        self._attachments: list[Attachment] = []
        self._outputs: list[StreamBuffer] = []
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._waiting: asyncio.Task[None] | None = None
        self._killed = False
        self._removal: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<EngineContainer {self.id} exited={self.exited}>"

    async def start(self) -> None:
        """Attach, then start."""
        async with phase("start", self._limits.start_s):
            engine_id = self._container.id
            both = await asyncio.gather(
                attach(self._host, engine_id, "stdin=1&stdout=1"),
                attach(self._host, engine_id, "stderr=1"),
                return_exceptions=True,
            )
            failures = [result for result in both if isinstance(result, BaseException)]
            attached = [result for result in both if not isinstance(result, BaseException)]
            self._attachments = [attachment for attachment, _ in attached]
            self._outputs = [output for _, output in attached]
            if failures:
                raise failures[0]
            (self.stdin, self.stdout), (_, self.stderr) = attached
            await self._container.start()
        self._waiting = asyncio.get_running_loop().create_task(self._await_exit())

    async def wait(self) -> Exit:
        """Wait until it has ended."""
        return await asyncio.shield(self._ended)

    @property
    def exited(self) -> Exit | None:
        """How it ended, if it has."""
        return self._ended.result() if self._ended.done() and not self._ended.cancelled() else None

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back when it has ended."""
        self._ended.add_done_callback(lambda ended: None if ended.cancelled() else callback(ended.result()))

    async def stats(self) -> AsyncIterator[StatsSample]:
        """The Engine's samples, about one a second."""
        with contextlib.suppress(DockerError, aiohttp.ClientError):
            async for raw in self._container.stats(stream=True):
                for sample in samples(raw):
                    yield sample

    async def kill(self) -> None:
        """End it now."""
        self._killed = True
        with contextlib.suppress(DockerError):
            async with phase("remove", self._limits.remove_s):
                with contextlib.suppress(DockerError):  # gone, or never started
                    await self._container.kill()

    async def remove(self) -> None:
        """Remove it; all who ask wait for the same removal, which goes on if they leave."""
        if self._removal is None or (self._removal.done() and self._removal.exception() is not None):
            self._killed = True
            self._removal = asyncio.get_running_loop().create_task(self._remove())
        await asyncio.shield(self._removal)

    async def _remove(self) -> None:
        async with phase("remove", self._limits.remove_s):
            await delete(self._docker, self._container.id)
        for attachment in self._attachments:
            attachment.abort()
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])
        self._end(Exit(137, error="removed"))

    async def _await_exit(self) -> None:
        """Learn how it ends: from the Engine, once all output is here."""
        try:
            code = int((await self._container.wait())["StatusCode"])
            oom = not self._killed and code == 137 and await self._was_out_of_memory()
            ended = Exit(code, oom=oom)
        except (DockerError, aiohttp.ClientError, OSError, KeyError) as exc:
            ended = Exit(137, error=f"lost: {exc}")
        await self._drain()
        self._end(ended)

    async def _was_out_of_memory(self) -> bool:
        state: Any = (await self._container.show())["State"]
        return bool(state.get("OOMKilled"))

    async def _drain(self) -> None:
        """Wait for the end of the output. What nobody reads stays in the buffers, and is not waited for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DRAIN_S
        drained = [output.wait_ended() for output in self._outputs]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await asyncio.gather(*drained)

    def _end(self, ended: Exit) -> None:
        if self._ended.done():
            return
        self._ended.set_result(ended)
        for output in self._outputs:
            output.feed_eof()
        for attachment in self._attachments:
            attachment.abort()  # the Engine would take input for ever


async def delete(docker: aiodocker.Docker, engine_id: str) -> None:
    """Remove a container with its volumes, running or not; that it is gone already is success."""
    try:
        await docker.containers.container(engine_id).delete(force=True, v=True)
    except DockerError as exc:
        if exc.status == _BEING_REMOVED:
            with contextlib.suppress(DockerError):
                await docker.containers.container(engine_id).wait(condition="removed")
        elif exc.status != _GONE:
            raise
