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
    """Watches a child by a descriptor of it: no thread, no signal handler, no number that may be somebody else's.

    Args:
        pid: Of the child, the leader of its own process group.
        ended: Told its exit code, once; a signal ``n`` shows as ``128 + n``.
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
        """It has ended."""
        return self._fd < 0

    def kill(self) -> None:
        """Kill it and its process group. A sandbox takes what is inside with it."""
        if not self.is_gone:  # until it is waited for, its number is its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _exited(self) -> None:
        self.kill()  # whom it left behind
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody else in this process has waited for it
            status = _UNKNOWN
        self._ended(128 - status if status < 0 else status)
