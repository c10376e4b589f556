"""Start a command as a child: a few system calls here, then a chain of programs that ends with the function.

The server does not fork: copying the page tables of a large process takes tens of milliseconds in which no call is
served. It spawns a shell, which shares the server's memory until it is executed. The chain, each program executing
the next one in the same process:

1. A shell enters the control groups and sets limits (:func:`enter`). It still has the server's user.
2. ``nsenter`` joins namespaces that exist already and becomes the function's user (:class:`Entry`). A container joins
   a network namespace of its app here: set ``Entry.network``, and leave the sandbox's network shared. Left out where
   there is nothing to join and no user to become.
3. bubblewrap, where there is a sandbox (:mod:`hearth.drivers.local.sandbox`); else ``setpriv``, so that no program
   gains privileges.
4. A shell puts the pipes and the environment in place (:func:`lay_out`). Shells drop names of variables that they
   cannot spell, so the function's environment travels in numbered variables and is laid out by ``env``. Every user
   of the machine sees the arguments of a process, so the shell itself exports secrets, whose names it can spell.
   An image with a root file system of its own may have no shell: there the starter does it, which takes the numbered
   variables as they are.

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

from hearth.drivers.local import programs
from hearth.drivers.local.marks import Mark

_SHELL: Final = "/bin/sh"
_VARIABLE: Final = "HEARTH_{}"
#: Variables that the launching programs have or set themselves.
_OF_SHELLS: Final = ("PATH", "PWD", "OLDPWD", "SHLVL", "_")
#: The child gets 0 to 5.
_LAST_GIVEN: Final = 5
#: What the child finds the sandbox's filter at; the sandbox reads it and closes it.
FILTER: Final = 9
#: What it finds the first program of an image with a root file system at (:mod:`hearth.drivers.local.starter`).
STARTER: Final = 8
#: Above every number that the child's descriptors get, so that none is overwritten before it is copied.
FIRST_FREE: Final = 10
#: Of a function, so that the kernel ends functions before the server when the machine has no memory left.
_OOM_SCORE: Final = 500
#: Python ignores some signals, and the parent of the server may ignore others; children would inherit that.
SIGNALS: Final = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a child and of all that it starts, together.

    Attributes:
        groups: Files of control groups that a process enters by writing 0.
        open_files: Of each process; 0 leaves the server's own limit.
        address_space: Of each process, bytes; 0 means unlimited.
        mark: Limits that tell whose the processes are.
    """

    groups: Sequence[Path] = ()
    open_files: int = 0
    address_space: int = 0
    mark: Mark | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The namespaces that a child joins, and its user, before its sandbox is set up.

    Attributes:
        uid: The user and group it becomes, without further groups; ``None`` keeps the server's.
        mount: Path of a mount namespace, as ``/proc/<pid>/fd/<fd>``; empty keeps the server's.
        user: The same for a user namespace.
        network: The same for a network namespace.
    """

    uid: int | None = None
    mount: str = ""
    user: str = ""
    network: str = ""

    def command(self, program: str) -> list[str]:
        """Return the arguments that join and then execute the following command; empty if there is nothing to join."""
        spaces = {"--user": self.user, "--mount": self.mount, "--net": self.network}
        options = [f"{option}={path}" for option, path in spaces.items() if path]
        if self.uid is not None:
            options += ["--setuid", str(self.uid), "--setgid", str(self.uid)]
        elif self.user:
            options.append("--preserve-credentials")
        return [program, *options, "--"] if options else []


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """A command that is ready to be spawned.

    Attributes:
        hidden: Descriptors that it must not inherit.
        filter_fd: Passed as ``FILTER``, opened again for each process, since a read moves its position.
        starter_fd: Passed as ``STARTER``.
        files: Contents of files in memory, passed as ``FIRST_FREE`` and the numbers after it.
        has_stdout: stdout has a pipe of its own; otherwise it is a part of stderr.
    """

    argv: list[str]
    env: Mapping[str, str] = dataclasses.field(repr=False)
    hidden: Sequence[int] = ()
    filter_fd: int | None = None
    starter_fd: int | None = None
    files: Sequence[bytes] = dataclasses.field(default=(), repr=False)
    has_stdout: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Spawned:
    """A child, and our ends of its pipes. ``messages`` carries what the launching programs have to say."""

    pid: int
    stdin: int
    stdout: int
    stderr: int
    messages: int


def lay_out(
    cmd: Sequence[str],
    variables: int,
    *,
    secrets: Sequence[str] = (),
    folder: Path | None = None,
    processes: int = 0,
) -> list[str]:
    """Return the command that runs ``cmd`` with exactly the environment and the pipes that it should have.

    Args:
        cmd: The program and its arguments.
        variables: Number of variables of the environment, secrets left out.
        secrets: Names of the variables that follow them, which no argument shows.
        folder: Where it runs; ``None`` if it is there already.
        processes: Limit of the user's processes within its user namespace; 0 means none.
    """
    values = " ".join(f'"${_VARIABLE.format(number)}"' for number in range(variables))
    clean = "-i"
    if secrets:  # -i would drop them as well
        numbered = [_VARIABLE.format(number) for number in range(variables + len(secrets))]
        clean = " ".join(f"-u {name}" for name in [*numbered, *(name for name in _OF_SHELLS if name not in secrets)])
    steps = [] if folder is None else [f"cd {shlex.quote(str(folder))}"]
    if processes:
        steps.append(f"ulimit -u {processes} 2>&- || ulimit -p {processes}")  # bash, or dash
    steps += [f'export "${_VARIABLE.format(variables + number)}"' for number in range(len(secrets))]
    steps.append(f'exec /usr/bin/env {clean} {values} "$@" <&3 >&4 2>&5 3<&- 4>&- 5>&-')
    return [_SHELL, "-c", " && ".join(steps), "function", *cmd]


def enter(cmd: Sequence[str], env: Mapping[str, str], limits: Limits) -> Command:
    """Return the command that enters ``limits`` and then runs ``cmd``."""
    steps = [f"echo 0 >{shlex.quote(str(group))}" for group in limits.groups]
    steps += ["umask 022", f"echo {_OOM_SCORE} >/proc/self/oom_score_adj", "ulimit -c 0"]
    if limits.open_files:
        steps.append(f"ulimit -n {_attainable(limits.open_files)}")
    if limits.address_space:
        steps.append(f"ulimit -v {limits.address_space >> 10}")
    if limits.mark is not None:
        locks = limits.mark.file_locks
        steps.append(f"ulimit -m {limits.mark.resident_kib}")
        steps.append(f"{{ ulimit -w {locks} 2>&- || ulimit -x {locks}; }}")  # dash, or bash
    script = " && ".join([*steps, 'exec "$@"'])
    variables = {_VARIABLE.format(number): f"{name}={value}" for number, (name, value) in enumerate(env.items())}
    return Command([_SHELL, "-c", script, "launch", *cmd], {"PATH": programs.PATH, **variables})


def inherited() -> list[int]:
    """Return the descriptors that this process got from its parent and would hand on.

    Those that Python opens are not inherited.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > _LAST_GIVEN and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def spawn(command: Command) -> Spawned:
    """Start it in a session of its own, with default dispositions for all signals and none blocked.

    Raises:
        OSError: The system refused.
        ValueError: A NUL in the command or the environment.
    """
    opened: list[int] = []
    opened_again = [
        (os.POSIX_SPAWN_OPEN, number, f"/proc/self/fd/{fd}", os.O_RDONLY, 0)
        for number, fd in ((FILTER, command.filter_fd), (STARTER, command.starter_fd))
        if fd is not None
    ]
    files: list[int] = []
    try:
        for content in command.files:
            _in_memory(content, FIRST_FREE + len(command.files), files)
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
                (os.POSIX_SPAWN_DUP2, theirs_out if command.has_stdout else theirs_err, 4),
                (os.POSIX_SPAWN_DUP2, theirs_err, _LAST_GIVEN),
                *[(os.POSIX_SPAWN_CLOSE, fd) for fd in command.hidden],
                *opened_again,
                # Last: the numbers may be those of descriptors that were copied above.
                *[(os.POSIX_SPAWN_DUP2, fd, FIRST_FREE + number) for number, fd in enumerate(files)],
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=SIGNALS,
        )
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    finally:
        for fd in files:
            os.close(fd)
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


def _in_memory(content: bytes, first: int, opened: list[int]) -> None:
    """Add a file in memory with this content, read from its start, to ``opened``."""
    made = os.memfd_create("hearth-secret")
    try:
        os.write(made, content)
        os.lseek(made, 0, os.SEEK_SET)
        opened.append(fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, first))
    finally:
        os.close(made)


def _attainable(open_files: int) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return open_files if hard == resource.RLIM_INFINITY else min(open_files, hard)
