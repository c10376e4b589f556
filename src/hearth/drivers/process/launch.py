"""From a command to a running child: a few system calls here, two short shell scripts there.

The server does not fork: copying the page tables of a large process takes tens of milliseconds in which no call is
served. It spawns a shell, which shares the server's memory until it is executed, and the shell does what has to
happen before the function: enter the control groups, set limits (``_ENTER``). Shells drop names of variables that
they cannot spell, so the function's environment travels in numbered variables and is laid out by ``env``, last of
all (``_LAY_OUT``).

The function's pipes are 3, 4 and 5 up to then. A sandbox keeps its 0, 1 and 2 for as long as it lives, and with them
a pipe would stay open that the function has closed; all others it hands on and lets go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import resource
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_SHELL: Final = "/bin/sh"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLE: Final = "HEARTH_{}"
#: The child gets 0 to 5.
_LAST_GIVEN: Final = 5
#: What the child finds the sandbox's filter at; the sandbox reads it and closes it.
FILTER: Final = 9
#: Above every number that the child's descriptors get, so that none is overwritten before it is copied.
FIRST_FREE: Final = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child and all that it starts may use together.

    Attributes:
        groups: Files of control groups that a process enters by writing 0.
        open_files: Of each process.
        address_space: Of each process, bytes; 0 means unlimited.
    """

    groups: Sequence[Path] = ()
    open_files: int
    address_space: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """What the shell runs, ready to be spawned.

    ``hidden``: descriptors that it must not inherit. ``filter_fd``: one that it gets as ``FILTER``, opened anew, since
    whoever reads it reads to its end.
    """

    argv: list[str]
    env: Mapping[str, str]
    hidden: Sequence[int] = ()
    filter_fd: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Spawned:
    """A child, and our ends of its pipes. ``messages`` carries what the launching programs have to say."""

    pid: int
    stdin: int
    stdout: int
    stderr: int
    messages: int


def lay_out(cmd: Sequence[str], variables: int) -> list[str]:
    """The command that runs ``cmd`` with exactly the environment and the pipes that it should have."""
    values = " ".join(f'"${_VARIABLE.format(number)}"' for number in range(variables))
    script = f'exec /usr/bin/env -i {values} "$@" <&3 >&4 2>&5 3<&- 4>&- 5>&-'
    return [_SHELL, "-c", script, "function", *cmd]


def enter(cmd: Sequence[str], env: Mapping[str, str], limits: Limits, folder: Path | None) -> Command:
    """The command that enters ``limits`` and then runs ``cmd``, in ``folder`` if it is given."""
    steps = [f"echo 0 >{shlex.quote(str(group))}" for group in limits.groups]
    steps += ["ulimit -c 0", f"ulimit -n {_attainable(limits.open_files)}"]
    if limits.address_space:
        steps.append(f"ulimit -v {limits.address_space >> 10}")
    if folder is not None:
        steps.append(f"cd {shlex.quote(str(folder))}")
    script = " && ".join([*steps, 'exec "$@"'])
    variables = {_VARIABLE.format(number): f"{name}={value}" for number, (name, value) in enumerate(env.items())}
    return Command([_SHELL, "-c", script, "launch", *cmd], {"PATH": _PATH, **variables})


def inherited() -> list[int]:
    """Descriptors that this process got from whoever started it, and would hand on; Python's own are not handed on."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > _LAST_GIVEN and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def spawn(command: Command) -> Spawned:
    """Start it in a session of its own.

    Raises:
        OSError: The system refused.
        ValueError: A NUL in the command or the environment.
    """
    opened: list[int] = []
    filtered = []
    if command.filter_fd is not None:
        filtered.append((os.POSIX_SPAWN_OPEN, FILTER, f"/proc/self/fd/{command.filter_fd}", os.O_RDONLY, 0))
    try:
        theirs_in, ours_in = _pipe(opened)
        ours_out, theirs_out = _pipe(opened)
        ours_err, theirs_err = _pipe(opened)
        ours_messages, theirs_messages = _pipe(opened)
        pid = os.posix_spawn(
            command.argv[0],
            command.argv,
            command.env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs_messages, 2),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
                (os.POSIX_SPAWN_DUP2, theirs_err, _LAST_GIVEN),
                *[(os.POSIX_SPAWN_CLOSE, fd) for fd in command.hidden],
                *filtered,
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them, and that would be inherited
        )
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    for fd in (theirs_in, theirs_out, theirs_err, theirs_messages):
        os.close(fd)
    return Spawned(pid, ours_in, ours_out, ours_err, ours_messages)


def _pipe(opened: list[int]) -> tuple[int, int]:
    ends = []
    for end in os.pipe():
        try:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
            opened.append(ends[-1])
        finally:
            os.close(end)
    return ends[0], ends[1]


def _attainable(open_files: int) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return open_files if hard == resource.RLIM_INFINITY else min(open_files, hard)
