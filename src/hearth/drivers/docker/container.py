"""One container of the Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from hearth.drivers.base import ByteReader, ByteWriter, Container, Exit, PhaseLimits, StatsSample
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import ENGINE_GONE, gone, phase, temporary
from hearth.drivers.docker.exits import Exits
from hearth.drivers.docker.health import has_check, until_healthy
from hearth.drivers.docker.removal import Remover
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.drivers.docker.stats import samples
from hearth.drivers.docker.streams import Attachment
from hearth.drivers.sampling import until_ended
from hearth.telemetry.tracing import span

#: Output that has not arrived this long after the exit will not.
_DRAIN_S: Final = 2.0
#: For so long after it was made, a container that is not found is one that the Engine has yet to find.
_NEW_S: Final = 2.0
_ALREADY_CONNECTED: Final = ("service endpoint with name", "already exists")


class EngineContainer(Container):
    """Made by the Engine, attached before it starts.

    stdin and stdout share one connection, stderr has its own: a slow reader of the answer does not hold up the log.

    Args:
        engine: That made it.
        remover: Removes it.
        exits: Hears of its end.
        engine_id: How the Engine calls it.
        container_id: How we call it.
        limits: Of its phases.
        on_removed: Called once when it is gone.
    """

    stdin: ByteWriter
    stdout: ByteReader
    stderr: ByteReader

    def __init__(
        self,
        engine: Engine,
        remover: Remover,
        exits: Exits,
        *,
        engine_id: str,
        container_id: str,
        limits: PhaseLimits,
        on_removed: Callable[[], None],
    ) -> None:
        self.id = container_id
        self._engine = engine
        self._remover = remover
        self._engine_id = engine_id
        self._limits = limits
        self._on_removed = on_removed
        self._new_until = asyncio.get_running_loop().time() + _NEW_S
        self._attachments: list[Attachment] = []
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._told = exits.expect(engine_id)
        self._told.add_done_callback(self._heard)
        self._waiting: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._killed = False
        self._removal: asyncio.Task[None] | None = None
        self._removed = False

    def __repr__(self) -> str:
        return f"<EngineContainer {self.id} exited={self.exited}>"

    async def start(self) -> None:
        """Attach, then start; where the image has a health check, wait until it is healthy."""
        async with phase("start", self._limits.start_s):
            shown = await self._engine.call("start", self._attach_and_start, self._may_start_again)
            self._waiting = asyncio.get_running_loop().create_task(self._await_exit())
            if has_check(shown):
                await until_healthy(lambda: self._engine.call("inspect", self._show), self._ended)

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
        collecting = span("docker_collect_stats").begin()  # never the present one: whoever iterates may be any task
        try:
            with contextlib.suppress(*ENGINE_ERRORS):
                async for raw in until_ended(self._engines.stats(stream=True), self._ended):
                    for sample in samples(raw):
                        yield sample
        finally:
            collecting.end()

    async def kill(self) -> None:
        """End it now."""
        self._killed = True
        async with phase("remove", self._limits.remove_s):
            try:
                await self._engine.call("kill", self._engines.kill)
            except DockerError as exc:
                if temporary(exc):
                    raise
                # gone, or never started

    async def remove(self) -> None:
        """Remove it; all who ask wait for the same removal, which goes on if they leave."""
        if self._removed:
            return
        if self._removal is None or (self._removal.done() and self._failed(self._removal)):
            self._killed = True
            self._removal = self._remover.remove(self._engine_id)
            self._removal.add_done_callback(self._gone)
        async with phase("remove", self._limits.remove_s):
            await asyncio.shield(self._removal)

    @property
    def _engines(self) -> DockerContainer:
        return self._engine.docker.containers.container(self._engine_id)

    # -- its start ------------------------------------------------------------------------------------------------

    async def _attach_and_start(self) -> Mapping[str, Any]:
        """One try. The Engine closes the streams of a start that failed, so each try attaches anew."""
        both, errors = Attachment(), Attachment()
        self._attachments = [both, errors]
        self.stdin, self.stdout, self.stderr = both, both.output, errors.output
        shown: Mapping[str, Any]
        try:
            with span("docker_attach_container"):
                _, _, shown = await asyncio.gather(
                    both.open(self._engine, self._engine_id, "stdin=1&stdout=1"),
                    errors.open(self._engine, self._engine_id, "stderr=1"),
                    self._show(),
                )
            with span("docker_start_container"):
                await self._start_attached()
        except BaseException:
            self._break_streams()
            self._told.cancel()  # the end of a start that failed is not that of the next one
            raise
        return shown

    async def _show(self) -> Mapping[str, Any]:
        with span("docker_inspect_container"):
            shown: Mapping[str, Any] = await self._engines.show()
            return shown

    async def _start_attached(self) -> None:
        try:
            await self._engines.start()
        except DockerError as exc:
            # An earlier try of ours got through, though its answer was an error.
            if not all(sign in str(exc.message).lower() for sign in _ALREADY_CONNECTED):
                raise

    def _may_start_again(self, exc: Exception) -> bool:
        if self._removal is not None:
            return False
        return temporary(exc) or (gone(exc) and asyncio.get_running_loop().time() < self._new_until)

    # -- its end --------------------------------------------------------------------------------------------------

    async def _await_exit(self) -> None:
        """Learn how it ends: from the Engine, once all output is here."""
        try:
            ended = await self._engine.call("wait", self._ask_for_exit, self._may_ask_again)
        except ENGINE_ERRORS as exc:
            ended = Exit(137, error=f"lost: {exc}")
            self._break_streams()
        await self._drain()
        self._end(ended)

    async def _ask_for_exit(self) -> Exit:
        with span("docker_wait_container"):
            answer = await self._engines.wait()
        return await self._judge(int(answer["StatusCode"]), (answer.get("Error") or {}).get("Message", ""))

    async def _judge(self, code: int, said: str) -> Exit:
        oom = not self._killed and code == 137 and await self._was_out_of_memory()
        return Exit(code, oom=oom, error=said)

    def _heard(self, told: asyncio.Future[int]) -> None:
        """The Engine has told of its end, most likely before it answers."""
        if not told.cancelled():
            self._hearing = asyncio.get_running_loop().create_task(self._believe(told.result()))

    async def _believe(self, code: int) -> None:
        try:
            ended = await self._judge(code, "")
        except ENGINE_ERRORS:
            return  # its answer is still awaited
        await self._drain()
        self._end(ended)

    def _may_ask_again(self, exc: Exception) -> bool:
        """A container whose streams ended with the Engine is lost to us, even if the Engine comes back with it."""
        answered = isinstance(exc, DockerError) and exc.status < ENGINE_GONE
        return temporary(exc) and (answered or not all(attachment.output.ended for attachment in self._attachments))

    async def _was_out_of_memory(self) -> bool:
        try:
            state: Any = (await self._show())["State"]
        except DockerError as exc:
            if gone(exc):
                return False
            raise
        return bool(state.get("OOMKilled"))

    async def _drain(self) -> None:
        """Wait for the end of the output. What nobody reads stays in the buffers, and is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await asyncio.gather(*[attachment.output.wait_ended() for attachment in self._attachments])

    def _end(self, ended: Exit) -> None:
        if self._ended.done():
            return
        self._ended.set_result(ended)
        self._told.cancel()
        for attachment in self._attachments:
            attachment.output.feed_eof()
            attachment.abort()  # the Engine would take input for ever

    def _gone(self, removal: asyncio.Task[None]) -> None:
        """The Engine confirmed that it is removed, or the removal was given up."""
        if self._failed(removal):
            return
        self._removed = True
        for task in (self._waiting, self._hearing):
            if task is not None:
                task.cancel()
        self._end(Exit(137, error="removed"))
        self._break_streams()
        self._on_removed()

    @staticmethod
    def _failed(removal: asyncio.Task[None]) -> bool:
        return removal.cancelled() or removal.exception() is not None

    def _break_streams(self) -> None:
        for attachment in self._attachments:
            attachment.abort()
