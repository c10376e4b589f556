"""One process of a local fleet: a node, or the balancer."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import signal
from collections.abc import Callable, Mapping
from typing import Final

from hearth.aio.clock import SystemClock, pause
from hearth.models.errors import StartUpError
from hearth.telemetry.logs import get_logger

_PR_SET_PDEATHSIG: Final = 1
_RESTART_DELAY_S: Final = 1.0
_CONNECT_AGAIN_S: Final = 0.05

_log = get_logger(__name__)


@dataclasses.dataclass(slots=True)
class MemberProcess:
    """One process of a local fleet.

    Attributes:
        ready_line: The start of the line that it prints when it serves; empty: it prints nothing.
        address: Where it serves, if it prints nothing.
        stop_signal: The signal that makes it end after its running calls.
        pass_fds: Descriptors that it gets, under the same numbers.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_line: bytes = b""
    address: tuple[str, int] = ("", 0)
    stop_signal: signal.Signals = signal.SIGTERM
    pass_fds: tuple[int, ...] = ()
    process: asyncio.subprocess.Process | None = None

    async def start(self, spawned: Callable[[], None] = lambda: None) -> None:
        """Start the process and wait until it serves.

        Args:
            spawned: Called once the process exists, which has its descriptors then.

        Raises:
            StartUpError: It ended instead; it has printed the reason.
        """
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(self.environment),
            stdout=asyncio.subprocess.PIPE,
            pass_fds=self.pass_fds,
            start_new_session=True,  # a Ctrl-C reaches only this process, which stops the members in their order
            preexec_fn=_end_with_parent,
        )
        spawned()
        if self.ready_line:
            await self._wait_for_line(self.process)
        else:
            await self._wait_for_port(self.process)

    async def stop(self) -> None:
        """Stop the process and wait until it has ended."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(self.stop_signal)
        await self.process.wait()

    async def keep_running(self) -> None:
        """Start the process again whenever it ends."""
        clock = SystemClock()
        while True:
            assert self.process is not None
            code = await self.process.wait()
            _log.error("a process ended, starting it again", process=self.name, exit_code=code)
            await pause(clock, _RESTART_DELAY_S)
            with contextlib.suppress(StartUpError):  # it has printed the reason; the next round tries again
                await self.start()

    async def _wait_for_line(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip().startswith(self.ready_line):
                return
        raise self._did_not_start()

    async def _wait_for_port(self, process: asyncio.subprocess.Process) -> None:
        while not await _accepts_connections(*self.address):
            if process.returncode is not None:
                raise self._did_not_start()
            await pause(SystemClock(), _CONNECT_AGAIN_S)

    def _did_not_start(self) -> StartUpError:
        return StartUpError(f"{self.name} did not start; see above")


def _end_with_parent() -> None:
    """Have the kernel stop this process when its parent ends, for whatever reason."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _accepts_connections(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
