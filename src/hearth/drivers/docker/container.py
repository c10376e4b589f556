"""One container of the Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from hearth.aio.background import Background
from hearth.aio.clock import pause
from hearth.drivers.base import Container, DriverError, Exit, PhaseLimits, StatsSample, Stdio
from hearth.drivers.docker.engine import Engine, parse_moment
from hearth.drivers.docker.errors import ENGINE_GONE, gone, phase, temporary
from hearth.drivers.docker.exits import Exits
from hearth.drivers.docker.health import has_check, until_healthy
from hearth.drivers.docker.init import start_fault
from hearth.drivers.docker.removal import Remover
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.drivers.docker.secret_files import delivered
from hearth.drivers.docker.stats import samples
from hearth.drivers.docker.streams import Attachment
from hearth.drivers.sampling import until_ended
from hearth.drivers.sockets import UnixSocket
from hearth.telemetry.logs import get_logger

#: Seconds after the exit within which the last output arrives.
_DRAIN_S: Final = 2.0
#: Pauses before questions about a killed container, seconds: the Engine hears of a lack of memory from another source
#: than of the exit, on a busy machine later.
_OOM_PAUSES_S: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
#: How long after its creation the Engine may not find a container that exists, seconds.
_NEW_S: Final = 2.0
_ALREADY_CONNECTED: Final = ("service endpoint with name", "already exists")

_log = get_logger(__name__)


class EngineContainer(Container):
    """A container of the Engine, attached before it starts.

    stdin and stdout share one connection, stderr has its own: a slow reader of the answer does not delay the log.

    Args:
        engine: The Engine that created it.
        remover: The remover of the driver's containers.
        exits: The listener for ends of containers.
        engine_id: The Engine's id of the container.
        container_id: Hearth's id of the container.
        limits: The limits of its phases.
        on_removed: Called once when the container is removed.
        secret_files: Secrets that the container gets as files, by name.
        socket: Where the container takes calls; ``None``: on its stdin.
    """

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
        secret_files: Mapping[str, str] | None = None,
        socket: UnixSocket | None = None,
    ) -> None:
        self.id = container_id
        self._engine = engine
        self._remover = remover
        self._engine_id = engine_id
        self._limits = limits
        self._on_removed = on_removed
        self._secret_files = secret_files or {}
        self._socket = socket
        self._new_until = asyncio.get_running_loop().time() + _NEW_S
        self._attachments: list[Attachment] = []
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._told = exits.expect(engine_id)
        self._told.add_done_callback(self._heard)
        self._background = Background(functools.partial(_log_unexpected, container_id))
        self._killed = False
        self._removal: asyncio.Task[None] | None = None
        self._removed = False

    def __repr__(self) -> str:
        return f"<EngineContainer {self.id} exited={self.exited}>"

    async def start(self) -> None:
        """Attach, start, and if the image has a health check, wait until the container is healthy."""
        async with phase("start", self._limits.start_s):
            shown = await self._engine.call("start", self._attach_and_start, self._may_start_again)
            self._background.run(self._await_exit())
            if has_check(shown):
                await until_healthy(lambda: self._engine.call("inspect", self._show), self._ended)

    async def wait(self) -> Exit:
        """Wait until the container has ended."""
        return await asyncio.shield(self._ended)

    async def ended_at(self) -> dt.datetime | None:
        """Return when the container ended, if the Engine uses the clock of this machine."""
        with contextlib.suppress(*ENGINE_ERRORS):
            if await self._engine.has_our_clock():
                return parse_moment(str((await self._show())["State"].get("FinishedAt")))
        return None

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back when the container has ended."""
        self._ended.add_done_callback(lambda ended: None if ended.cancelled() else callback(ended.result()))

    async def stats(self) -> AsyncIterator[StatsSample]:
        """Yield the Engine's samples, about one a second."""
        # Not entered: the task that ends the iteration may be another.
        collecting = self._engine.span("docker_collect_stats").begin()
        try:
            with contextlib.suppress(*ENGINE_ERRORS):
                async for raw in until_ended(self._engines.stats(stream=True), self._ended):
                    for sample in samples(raw):
                        yield sample
        finally:
            collecting.end()

    async def freeze(self) -> None:
        """Pause the container."""
        await self._change("freeze", self._engines.pause)

    async def thaw(self) -> None:
        """Let the container go on."""
        await self._change("thaw", self._engines.unpause)

    async def _change(self, what: str, change: Callable[[], Awaitable[object]]) -> None:
        try:
            await change()
        except DockerError as exc:
            if "not paused" not in str(exc.message):
                raise DriverError(f"{what}: {exc.message}") from exc
        except ENGINE_ERRORS as exc:
            raise DriverError(f"{what}: {exc!r}") from exc

    async def kill(self) -> None:
        """Kill the container."""
        self._killed = True
        async with phase("remove", self._limits.remove_s):
            try:
                await self._engine.call("kill", self._engines.kill)
            except DockerError as exc:
                if temporary(exc):
                    raise
                # gone, or never started

    async def remove(self) -> None:
        """Remove the container. All callers wait for the same removal, which continues if they are cancelled."""
        if self._removed:
            return
        if self._removal is None or (self._removal.done() and self._failed(self._removal)):
            self._killed = True
            for attachment in self._attachments:  # the Engine removes no container whose output it cannot deliver
                attachment.output.discard()
            self._removal = self._remover.remove(self._engine_id)
            self._removal.add_done_callback(self._gone)
        async with phase("remove", self._limits.remove_s):
            await asyncio.shield(self._removal)
            await self._background.join()
        if self._socket is not None:
            await self._socket.remove()

    @property
    def _engines(self) -> DockerContainer:
        return self._engine.docker.containers.container(self._engine_id)

    # -- its start ------------------------------------------------------------------------------------------------

    async def _attach_and_start(self) -> Mapping[str, Any]:
        """Try once. The Engine closes the streams of a start that failed, so each try attaches again."""
        streams = self._attach()
        self._attachments = list(streams)
        shown: Mapping[str, Any]
        try:
            with self._engine.span("docker_attach_container"):
                shown, *_ = await asyncio.gather(
                    self._show(), *[each.open(self._engine, self._engine_id, names) for each, names in streams.items()]
                )
            async with delivered(self._engine, self._remover, shown, self._secret_files):
                with self._engine.span("docker_start_container"):
                    await self._start_attached()
        except BaseException:
            self._break_streams()
            self._told.cancel()  # the end of a failed start is not that of the next start
            raise
        return shown

    def _attach(self) -> dict[Attachment, str]:
        """Set the channel and the log; return what is to be opened, with the streams of each. stderr comes last."""
        errors = Attachment()
        self.stderr = errors.output
        if self._socket is not None:
            self.channel = self._socket
            return {errors: "stdout=1&stderr=1"}
        both = Attachment()
        self.channel = Stdio(both, both.output)
        return {both: "stdin=1&stdout=1", errors: "stderr=1"}

    async def _show(self) -> Mapping[str, Any]:
        with self._engine.span("docker_inspect_container"):
            shown: Mapping[str, Any] = await self._engines.show()
            return shown

    async def _start_attached(self) -> None:
        try:
            await self._engines.start()
        except DockerError as exc:
            # An earlier try succeeded, although its answer was an error.
            if not all(sign in str(exc.message).lower() for sign in _ALREADY_CONNECTED):
                raise

    def _may_start_again(self, exc: Exception) -> bool:
        if self._removal is not None:
            return False
        return temporary(exc) or (gone(exc) and asyncio.get_running_loop().time() < self._new_until)

    # -- its end --------------------------------------------------------------------------------------------------

    async def _await_exit(self) -> None:
        """Wait for the exit code and for the rest of the output."""
        try:
            ended = await self._engine.call("wait", self._ask_for_exit, self._may_ask_again)
        except ENGINE_ERRORS as exc:
            ended = Exit(137, error=f"lost: {exc}")
            self._break_streams()
        await self._drain()
        self._end(ended)

    async def _ask_for_exit(self) -> Exit:
        with self._engine.span("docker_wait_container"):
            answer = await self._engines.wait()
        return await self._judge(int(answer["StatusCode"]), (answer.get("Error") or {}).get("Message", ""))

    async def _judge(self, code: int, said: str) -> Exit:
        oom = not self._killed and code == 137 and await self._was_out_of_memory()
        return Exit(code, oom=oom, error=said)

    def _why_not_executed(self) -> str:
        return start_fault(self._attachments[-1].beginning) if self._attachments else ""

    def _heard(self, told: asyncio.Future[int]) -> None:
        """Take the end that the Engine reports, most likely before it answers the request to wait."""
        if not told.cancelled():
            self._background.run(self._believe(told.result()))

    async def _believe(self, code: int) -> None:
        try:
            ended = await self._judge(code, "")
        except ENGINE_ERRORS:
            return  # the waiting request still answers
        await self._drain()
        self._end(ended)

    def _may_ask_again(self, exc: Exception) -> bool:
        """Return whether to ask again: not if the streams ended with the Engine, as then the container is lost."""
        answered = isinstance(exc, DockerError) and exc.status < ENGINE_GONE
        return temporary(exc) and (answered or not all(attachment.output.ended for attachment in self._attachments))

    async def _was_out_of_memory(self) -> bool:
        for pause_s in _OOM_PAUSES_S:
            await pause(self._engine.clock, pause_s)
            try:
                state: Any = (await self._show())["State"]
            except DockerError as exc:
                if gone(exc):
                    return False
                raise
            if state.get("OOMKilled"):
                return True
        return False

    async def _drain(self) -> None:
        """Wait for the end of the output, but not until somebody reads it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await asyncio.gather(*[attachment.output.wait_ended() for attachment in self._attachments])

    def _end(self, ended: Exit) -> None:
        if self._ended.done():
            return
        if ended.code and not self._killed:
            ended = dataclasses.replace(ended, start_fault=self._why_not_executed())
        self.exited = ended
        self._ended.set_result(ended)
        self._told.cancel()
        for attachment in self._attachments:
            attachment.output.feed_eof()
            attachment.abort()  # the Engine would accept input forever

    def _gone(self, removal: asyncio.Task[None]) -> None:
        """Note that the Engine has removed it, or that the removal was given up."""
        if self._failed(removal):
            return
        self._removed = True
        self._background.stop()
        self._end(Exit(137, error="removed"))
        self._break_streams()
        self._on_removed()

    @staticmethod
    def _failed(removal: asyncio.Task[None]) -> bool:
        return removal.cancelled() or removal.exception() is not None

    def _break_streams(self) -> None:
        for attachment in self._attachments:
            attachment.abort()


def _log_unexpected(container_id: str, error: BaseException) -> None:
    """Log it without the container, which would refer to itself until the garbage collector runs."""
    _log.error("the end of a container is not known", container_id=container_id, exc_info=error)
