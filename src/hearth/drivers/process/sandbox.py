"""The sandbox of a process: bubblewrap, where it works."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hearth.drivers.process import keyrings

#: What every function may read. Nothing of /etc that could hold a secret.
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = (
    "alternatives",
    "ca-certificates",
    "group",
    "hosts",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "resolv.conf",
    "ssl",
)
_SPACES: Final = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
#: Without these a function of a server that runs as root could make its read-only folders writable again.
_RIGHTS: Final = ("--cap-drop", "ALL")
_PROBE_LIMIT_S: Final = 10


def find() -> str | None:
    """The path of a bubblewrap that works here. Runs it once: for start-up only."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    usr, filter_fd = Path("/usr"), keyrings.open_filter()
    argv = wrap(program, ["/bin/true"], folder=usr, workdir=usr, roots=(), filter_fd=filter_fd)
    given = () if filter_fd is None else (filter_fd,)
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PROBE_LIMIT_S, check=False, pass_fds=given)
    except (OSError, subprocess.TimeoutExpired):
        return None
    finally:
        for descriptor in given:
            os.close(descriptor)
    return program if done.returncode == 0 else None


def wrap(
    program: str, cmd: Sequence[str], *, folder: Path, workdir: Path, roots: Sequence[str], filter_fd: int | None
) -> list[str]:
    """The command that runs ``cmd`` in a sandbox.

    It sees the system's programs, ``folder`` and ``roots``, all read-only; a /tmp, /proc and /dev of its own; no other
    process, no other file. System calls that the filter refuses fail. It dies with its parent.
    """
    argv = [program, *_SPACES, *_RIGHTS, "--die-with-parent", "--new-session", "--hostname", "function"]
    for path in (*SYSTEM, *(f"/etc/{name}" for name in _ETC)):
        argv += ["--ro-bind-try", path, path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/home"]
    for path in (*roots, str(folder)):
        argv += ["--ro-bind", path, path]
    argv += ["--remount-ro", "/home", "--remount-ro", "/"]
    # Files below /proc/sys belong to root, and a server that runs as root shows them to a function as its own.
    argv += ["--remount-ro", "/proc"]
    if filter_fd is not None:
        argv += ["--seccomp", str(filter_fd)]
    return [*argv, "--chdir", str(workdir), "--", *cmd]
