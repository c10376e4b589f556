"""The first process of a container: it starts the command as its child and reaps orphans.

Processes that functions leave behind become children of process 1, and stay zombies until it waits for them. A node
cannot do that itself: it waits for its own children in many places, which need their exit codes.
"""

from __future__ import annotations

import os
import signal
from typing import Final

_FIRST: Final = 1
#: Signals of the terminal for background processes that read or write; the child must not get them.
_OF_TERMINALS: Final = frozenset({signal.SIGTTIN, signal.SIGTTOU})


def split_off_init() -> None:
    """Return in a child of this process if it is process 1, which then never returns; else do nothing."""
    if os.getpid() == _FIRST:
        run_in_child()


def run_in_child() -> None:
    """Return in a child; pass signals on to it, reap all others, end as it ends."""
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        _take_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    status = None
    while status is None:
        number = signal.sigwait(signals)
        if number == signal.SIGCHLD:
            status = _reap(child)
        elif number not in _OF_TERMINALS:
            os.kill(child, number)  # not reaped yet, so the number is its own
    os._exit(128 - status if status < 0 else status)


def _take_terminal() -> None:
    """Have a process group of its own: the terminal's Ctrl-C would reach it here, and a second time by its parent."""
    os.setpgid(0, 0)
    if os.isatty(0):
        os.tcsetpgrp(0, os.getpgrp())


def _reap(child: int) -> int | None:
    """Wait for all who have ended; return the exit code of the child if it is one of them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            return None
