"""A child process and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

_UNKNOWN: Final = 255


class Child:
    """Watches a child through a descriptor: without a thread, a signal handler or a reused process id.

    Args:
        pid: The process id of the child, which leads its own process group.
        ended: Called once with the exit code; a signal ``n`` counts as ``128 + n``.
    """

    __slots__ = ("_ended", "_fd", "_loop", "pid")

    def __init__(self, pid: int, ended: Callable[[int], None]) -> None:
        self.pid = pid
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._loop.add_reader(self._fd, self._exited)

    @property
    def is_gone(self) -> bool:
        """Return whether the child has ended."""
        return self._fd < 0

    def kill(self) -> None:
        """Kill the child and its process group. A sandbox takes its processes with it."""
        if not self.is_gone:  # its id is not reused before it is waited for
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _exited(self) -> None:
        self.kill()  # the processes that it left behind
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # other code in this process has waited for it
            status = _UNKNOWN
        ended, self._ended = self._ended, _ignore  # it refers to the owner of this child
        ended(128 - status if status < 0 else status)


def _ignore(code: int) -> None:
    """Ignore a second end: a child ends once."""
