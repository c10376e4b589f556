"""The sandbox of a process: bubblewrap, where it works.

The sandbox has the network that it is started in: the machine's, or a namespace of the app's
(:mod:`hearth.drivers.local.network`). Or it has none.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hearth.drivers.local.launch import FILTER
from hearth.drivers.local.system_files import HOSTNAME, OF_IMAGES, RESOLVER, UID, present
from hearth.drivers.sockets import FOLDER as SOCKETS
from hearth.models.function_network import FunctionNetwork
from hearth.models.secret import FOLDER

#: What every function may read besides files of /etc.
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SPACES: Final = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_RIGHTS: Final = ("--cap-drop", "ALL")
#: Of bubblewrap 0.8 and later. Without it the filter of system calls alone refuses namespaces.
_NO_NESTING: Final = "--disable-userns"
_USER_NAMESPACES: Final = Path("/proc/sys/user/max_user_namespaces")
_PROBE_LIMIT_S: Final = 10
_PROBE_TMP: Final = 1 << 20
#: Room for the files of all secrets of a function, where their folder is a file system of its own.
_SECRET_BYTES: Final = 16 << 20


class NoSandbox(Exception):
    """Functions cannot be walled in here; the text says why, and ``advice`` what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


@dataclasses.dataclass(frozen=True, slots=True)
class Root:
    """A root file system that an image brings.

    Attributes:
        folder: Where it lies.
        volumes: Folders of it that can be written to, in memory; absolute paths without links.
        is_writable: All of it can be written to.
    """

    folder: Path
    volumes: Sequence[str] = ()
    is_writable: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of the file system that one function sees, and the user that it is there.

    Attributes:
        shown: Folders of the machine that it sees under their own names, read-only.
        root: Its root file system; ``None`` shows the programs and the system files of the machine.
        workdir: Where it runs, as it sees it.
        uid: Its user.
        gid: Its group.
        system_files: The folder of what :mod:`~hearth.drivers.local.system_files` wrote.
        tmp_bytes: Size of /tmp.
        shm_bytes: Size of /dev/shm.
        secrets: Names of the files in /run/secrets, each with the descriptor of its content.
        sockets: The folder of its socket; ``None`` if it does not listen.
    """

    system_files: Path
    workdir: str
    tmp_bytes: int
    shm_bytes: int
    shown: Sequence[str] = ()
    root: Root | None = None
    uid: int = UID
    gid: int = UID
    secrets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sockets: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Sandbox:
    """A bubblewrap that works here.

    Attributes:
        program: Its path.
        options: Those that hold for every function.
        binds: Of the machine's folders and files that every function sees.
        network: What functions reach; with ``INTERNET`` they are started in a namespace that decides it.
    """

    program: str
    options: tuple[str, ...]
    binds: tuple[str, ...]
    network: FunctionNetwork = FunctionNetwork.HOST

    def wrap(self, cmd: Sequence[str], view: View, *, filtered: bool) -> list[str]:
        """Return the command that runs ``cmd`` in a sandbox.

        It sees what the view shows; a /tmp, /proc and /dev of its own; no other process, no other file. System calls
        that the filter refuses fail. It dies with its parent.
        """
        argv = [self.program, *self.options, "--uid", str(view.uid), "--gid", str(view.gid)]
        argv += ["--die-with-parent", "--new-session", "--hostname", HOSTNAME]
        if self.network is FunctionNetwork.NONE:
            argv.append("--unshare-net")
        argv += self._show_machine(view) if view.root is None else self._show_image(view, view.root)
        # Both are memory without a limit. Files below /proc/sys belong to root, and a server in a container of
        # another kind may be root for them.
        argv += ["--remount-ro", "/dev", "--remount-ro", "/proc"]
        if view.root is None:
            argv += ["--remount-ro", "/"]
        if filtered:
            argv += ["--seccomp", str(FILTER)]
        return [*argv, "--chdir", view.workdir, "--", *cmd]

    def _show_machine(self, view: View) -> list[str]:
        """Return the options for a function that runs on the machine's own system files."""
        argv = ["--ro-bind", str(view.system_files), "/etc", *self.binds, *self._resolver, *_own_memory(view)]
        argv += ["--dir", "/home"]
        if view.sockets is not None:
            argv += ["--bind", str(view.sockets), SOCKETS]
        for path in view.shown:
            argv += ["--ro-bind", path, path]
        if view.secrets:
            argv += ["--perms", "0700", "--dir", FOLDER, *_files(view.secrets)]
        return argv

    def _show_image(self, view: View, root: Root) -> list[str]:
        """Return the options for a function of an image that brings its own. Every place of a mount is there."""
        argv = ["--bind" if root.is_writable else "--ro-bind", str(root.folder), "/"]
        for name in OF_IMAGES:
            argv += ["--ro-bind", str(view.system_files / name), f"/etc/{name}"]
        argv += [*self._resolver, *_own_memory(view)]
        if view.sockets is not None:
            argv += ["--bind", str(view.sockets), SOCKETS]
        for path in () if root.is_writable else root.volumes:
            argv += ["--size", str(view.tmp_bytes), "--tmpfs", path]
        if view.secrets:
            argv += ["--size", str(_SECRET_BYTES), "--perms", "0700", "--tmpfs", FOLDER, *_files(view.secrets)]
            argv += ["--remount-ro", FOLDER]
        return argv

    @property
    def _resolver(self) -> list[str]:
        if self.network is not FunctionNetwork.HOST:
            return []
        return ["--ro-bind-try", f"/etc/{RESOLVER}", f"/etc/{RESOLVER}"]


def _own_memory(view: View) -> list[str]:
    """Return the options for what every function has for itself."""
    argv = ["--proc", "/proc", "--dev", "/dev"]
    argv += ["--size", str(view.shm_bytes), "--perms", "1777", "--tmpfs", "/dev/shm"]
    return [*argv, "--size", str(view.tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp"]


def _files(secrets: Mapping[str, int]) -> list[str]:
    argv: list[str] = []
    for name, descriptor in secrets.items():
        argv += ["--perms", "0400", "--file", str(descriptor), f"{FOLDER}/{name}"]
    return argv


def find(entry: Sequence[str], system_files: Path, filter_fd: int | None) -> Sandbox:
    """Return the sandbox that works here. Runs it once or twice: for start-up only.

    Args:
        entry: What comes before it on the way to a function (:meth:`hearth.drivers.local.launch.Entry.command`).
        system_files: As in :class:`View`.
        filter_fd: The filter of system calls; ``None`` where there is none.

    Raises:
        NoSandbox: None does.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise NoSandbox("bubblewrap is not installed", "install bubblewrap (bwrap)")
    plain = (*_SPACES, *_RIGHTS)
    said, binds = "", _binds()
    for options in ((*plain, _NO_NESTING), *([] if filter_fd is None else [plain])):
        found = Sandbox(program, options, binds)
        said = try_out(found, entry, system_files, filter_fd)
        if not said:
            return found
    raise _explained(said)


def _binds() -> tuple[str, ...]:
    """Return the options that show the system. As few mounts as will do: they are most of the time of a start."""
    options: list[str] = []
    for path in SYSTEM:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    for name in present():
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return tuple(options)


def try_out(found: Sandbox, entry: Sequence[str], system_files: Path, filter_fd: int | None) -> str:
    """Run it; return what it says if it fails."""
    view = View(system_files=system_files, workdir="/usr", tmp_bytes=_PROBE_TMP, shm_bytes=_PROBE_TMP)
    argv = [*entry, *found.wrap(["/bin/true"], view, filtered=filter_fd is not None)]
    if filter_fd is not None:  # opened again, because a reader moves its position
        argv = ["/bin/sh", "-c", f'exec "$@" {FILTER}</proc/self/fd/{filter_fd}', "probe", *argv]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_LIMIT_S,
            check=False,
            pass_fds=() if filter_fd is None else (filter_fd,),
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return "" if done.returncode == 0 else done.stderr.strip() or f"ended with status {done.returncode}"


def _explained(said: str) -> NoSandbox:
    try:
        allowed = int(_USER_NAMESPACES.read_text())
    except (OSError, ValueError):
        allowed = 0
    if not allowed:
        advice = "allow unprivileged user namespaces (sysctl user.max_user_namespaces)"
        return NoSandbox("user namespaces are switched off", advice)
    return NoSandbox(
        f"bubblewrap does not work here: {said.splitlines()[-1]}",
        "allow unprivileged user namespaces; in a container, see 'A node in a container' in docs/security.md",
    )
