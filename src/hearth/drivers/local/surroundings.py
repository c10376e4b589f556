"""The isolation of functions from this machine, set up once at the start of a driver."""

from __future__ import annotations

import dataclasses
import fcntl
import ipaddress
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from hearth.drivers.base import DriverUnavailable
from hearth.drivers.local import bundle, launch, mounts, sandbox, starter, system_files, system_images
from hearth.drivers.local.network.addresses import NAMESERVER
from hearth.drivers.local.network.namespace import NOTHING, Joined
from hearth.drivers.local.users import FunctionUsers
from hearth.drivers.local.writable import Overlays
from hearth.host import seccomp
from hearth.models.function_network import FunctionNetwork
from hearth.telemetry.logs import get_logger

_MIB: Final = 1 << 20
_PROBE_LIMIT_S: Final = 10
_SYSTEM_FILES: Final = ".system"
#: System calls for files without a name, and for shared segments, semaphores and messages, which may take gigabytes.
_UNCOUNTED_MEMORY: Final = ("memfd_create", "memfd_secret", "shmget", "semget", "msgget")

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """The isolation of functions that the operator asks for.

    Attributes:
        sandbox: Functions run in a sandbox only, where possible, or never.
        uids: The users that functions run as where the server runs as root.
        max_pids: Processes and threads of one container; 0 means no limit.
        max_open_files: Open files of one process; 0 leaves the server's own limit.
        network: What functions may reach; ``None``: the internet where networks can be made, else
            ``network_without_tools``.
        network_without_tools: Where nothing is asked for, and networks cannot be made.
        allowed_networks: Private networks that functions with ``INTERNET`` may reach.
        read_only: Functions of images that bring a root file system write to ``/tmp`` and to volumes only.
        unprivileged: They are user 1000 and group 1000, whatever the image says.
        listeners_read_only: The same as ``read_only`` for those that listen on a socket, as Fn's server has it.
        listeners_unprivileged: The same as ``unprivileged`` for them.
        listeners_have_volumes: They may be of images that declare volumes.
    """

    sandbox: Literal["required", "preferred", "off"] = "preferred"
    uids: range = range(2_000_000_000, 2_000_065_536)
    max_pids: int = 50
    max_open_files: int = 1024
    network: FunctionNetwork | None = None
    network_without_tools: FunctionNetwork = FunctionNetwork.NONE
    allowed_networks: tuple[ipaddress.IPv4Network, ...] = ()
    read_only: bool = False
    unprivileged: bool = False
    listeners_read_only: bool = True
    listeners_unprivileged: bool = True
    listeners_have_volumes: bool = False


class Surroundings:
    """The users, namespaces, filter and sandbox that functions of one node get.

    Args:
        bundles: The folder of bundles.
        node: Names this node among those of the machine.
        walls: What the operator wants.

    Attributes:
        sandbox: ``None`` where functions run without one.
        missing: Why there is no sandbox; empty if there is one, or none is wanted.
        filter_fd: The filter of system calls; ``None`` on machines that it does not know.
        starter_fd: The first program of images that bring a root file system; ``None`` where those do not run.
        inherited: Descriptors that no function may inherit.
        overlays: Make root file systems that functions may write to.
    """

    def __init__(self, bundles: Path, node: str, walls: Walls) -> None:
        self._bundles = bundles
        self._walls = walls
        self._first_user = zlib.crc32(node.encode())
        self._users: FunctionUsers | None = None
        self._mounts: int | None = None
        self._system_files = bundles / _SYSTEM_FILES
        self._reachable: frozenset[Path] = frozenset()
        self._without_sandbox: tuple[str, ...] = ()
        self.sandbox: sandbox.Sandbox | None = None
        self.missing = ""
        self.filter_fd: int | None = None
        self.starter_fd: int | None = None
        self.inherited: list[int] = []
        self.overlays = Overlays(bundles)

    def set_up(self, sockets: Path | None = None, *, counts_memory: bool) -> None:
        """Find out what works here. Blocks.

        Args:
            sockets: The folder of the folders of sockets, if functions are to run.
            counts_memory: Control groups count all memory of a function. Where they do not, it gets none that belongs
                to no process's address space, and so to no limit.

        Raises:
            DriverUnavailable: Functions cannot be isolated as the operator asks.
        """
        try:
            bundle.make_folder(self._bundles)
            self._bundles = self._bundles.resolve()
            self.overlays = Overlays(self._bundles)
            self._system_files = self._bundles / _SYSTEM_FILES
            system_files.write(self._system_files)
        except OSError as exc:
            raise DriverUnavailable(f"{self._bundles}: {exc.strerror or exc}") from exc
        self.inherited = launch.inherited()
        if shutil.which("setpriv") is not None:
            self._without_sandbox = ("setpriv", "--no-new-privs", "--")
        if os.geteuid() == 0:
            self._set_up_users(sockets)
        if self._walls.sandbox != "off":
            self._set_up_sandbox(() if counts_memory else _UNCOUNTED_MEMORY)

    def close(self) -> None:
        """Give back what the functions shared."""
        for descriptor in (self.filter_fd, self.starter_fd, self._mounts):
            if descriptor is not None:
                os.close(descriptor)
        self.filter_fd = self.starter_fd = self._mounts = None
        self.overlays.close()

    def set_network(self, network: FunctionNetwork) -> None:
        """Set what functions in the sandbox reach. Blocks shortly.

        Raises:
            DriverUnavailable: A file for functions cannot be written.
        """
        assert self.sandbox is not None
        nameserver = NAMESERVER if network is FunctionNetwork.INTERNET else ""
        try:
            system_files.write_resolver(self._system_files, nameserver)
        except OSError as exc:
            raise DriverUnavailable(f"{self._system_files}: {exc.strerror or exc}") from exc
        self.sandbox = dataclasses.replace(self.sandbox, network=network)

    @property
    def network(self) -> FunctionNetwork:
        """The network that functions have."""
        return FunctionNetwork.HOST if self.sandbox is None else self.sandbox.network

    def why_not_within(self, namespace: Joined) -> str:
        """Return what the sandbox says if it does not work in a network namespace; empty if it does. Blocks."""
        assert self.sandbox is not None
        entry = self._entry(self._probe_uid, namespace)
        return sandbox.try_out(self.sandbox, entry, self._system_files, self.filter_fd)

    def enter(self, app: str, namespace: Joined = NOTHING) -> list[str]:
        """Return the start of a command: how a child becomes its app's user, where that reaches its bundle.

        :meth:`leave` ends the use of that user.

        Args:
            app: Identity of the app.
            namespace: Of its network.

        Raises:
            NoUserLeft: Every user of the range is taken.
        """
        return self._entry(None if self._users is None else self._users.acquire(app), namespace)

    def enter_writable(self, app: str, namespace: Joined, root: Path, size_mib: int) -> tuple[list[str], int | None]:
        """Return the start of a command for an app that has entered, with an overlay over a root file system. Blocks.

        The descriptor keeps the overlay; it is the caller's to close. There is none if the command makes the overlay.

        Raises:
            OSError: The overlay cannot be made.
        """
        uid = self.user_of(app)
        if uid is None:
            # the namespace of the network first: a new user namespace leads into no other one
            return [*self._entry(None, namespace), *self.overlays.enter(root, size_mib)], None
        made = self.overlays.make(self._mounts, root, uid, size_mib)
        return self._entry(uid, namespace, made), made

    def user_of(self, app: str) -> int | None:
        """Return the user of an app that has entered; ``None`` if it is the server's."""
        return None if self._users is None else self._users.of(app)

    def leave(self, app: str) -> None:
        """One container of the app is gone."""
        if self._users is not None and (uid := self._users.release(app)) is not None:
            self.overlays.forget(uid)

    def hides(self, folder: Path) -> bool:
        """Return whether the users of functions cannot reach a folder outside of their bundle."""
        if self._users is None or folder in self._reachable:
            return False
        return mounts.blocking(folder) is not None

    def wrap(
        self,
        cmd: Sequence[str],
        found: bundle.Bundle,
        user: system_images.User | None,
        secrets: Mapping[str, int],
        *,
        is_writable: bool,
        tmp_mib: int,
        shm_mib: int,
        sockets: Path | None = None,
    ) -> list[str]:
        """Return the command that runs ``cmd`` inside, where there is a sandbox.

        Args:
            cmd: The command.
            found: The bundle.
            user: The user of the container, if the image brings a root file system.
            secrets: As in :class:`~hearth.drivers.local.sandbox.View`; needs a sandbox.
            is_writable: There is an overlay over that root file system.
            tmp_mib: Size of /tmp.
            shm_mib: Size of /dev/shm.
            sockets: As in :class:`~hearth.drivers.local.sandbox.View`.
        """
        if self.sandbox is None:
            return [*self._without_sandbox, *cmd]
        view = sandbox.View(
            system_files=self._system_files,
            workdir=str(found.files),
            tmp_bytes=tmp_mib * _MIB,
            shm_bytes=shm_mib * _MIB,
            shown=(*found.manifest.roots, str(found.folder)),
            secrets=secrets,
            sockets=sockets,
        )
        if (system := found.manifest.system) is not None and user is not None:
            root = sandbox.Root(found.root, system.volumes, is_writable)
            view = dataclasses.replace(view, workdir=system.workdir, root=root, uid=user.uid, gid=user.gid)
        return self.sandbox.wrap(cmd, view, filtered=self.filter_fd is not None)

    def _set_up_sandbox(self, refused: Sequence[str]) -> None:
        if self.filter_fd is None:
            self.filter_fd = _open_filter(refused)
        if self.starter_fd is None:
            self.starter_fd = starter.open_program()
        try:
            self.sandbox = sandbox.find(self._entry(self._probe_uid), self._system_files, self.filter_fd)
        except sandbox.NoSandbox as exc:
            if self._walls.sandbox == "required":
                raise DriverUnavailable(
                    f"FN_SANDBOX=required: {exc}; {exc.advice}, or set FN_SANDBOX=preferred to run functions without "
                    "walls where there are none"
                ) from exc
            self.missing = f"{exc}; {exc.advice}"
        else:
            self.overlays.try_out(self._mounts, self._probe_uid)

    def _set_up_users(self, sockets: Path | None) -> None:
        """Have functions run as users that are not root."""
        if shutil.which("nsenter") is None:
            raise DriverUnavailable("functions do not run as root, and nsenter is missing; install util-linux")
        bundle.make_readable(self._bundles)
        prefix = Path(sys.base_prefix)
        self._make_reachable(frozenset({self._bundles, sockets or self._bundles, prefix, prefix.resolve()}))
        if self._users is None:
            self._users = FunctionUsers(self._walls.uids, self._first_user)
        argv = [*self._entry(self._probe_uid), "/bin/true"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_LIMIT_S)
        if done.returncode:
            uids = self._walls.uids
            raise DriverUnavailable(
                f"FN_FUNCTION_UIDS={uids[0]}-{uids[-1]}: functions cannot become such a user here "
                f"({done.stderr.strip()}); give the server the capabilities SETUID and SETGID and a range that its "
                "user namespace has, or run it as an ordinary user"
            )

    def _make_reachable(self, folders: frozenset[Path]) -> None:
        try:
            made = mounts.make(folders)
        except OSError as exc:
            for folder in folders:
                if (obstacle := mounts.blocking(folder)) is not None:
                    raise DriverUnavailable(
                        f"{folder}: functions do not run as root and cannot pass through {obstacle} ({exc}); run the "
                        "server as an ordinary user, or with the capability SYS_ADMIN"
                    ) from exc
            return
        if self._mounts is not None:
            os.close(self._mounts)
        self._mounts, self._reachable = made, folders

    @property
    def _probe_uid(self) -> int | None:
        return None if self._users is None else self._walls.uids[-1]

    def _entry(self, uid: int | None, namespace: Joined = NOTHING, mounts_fd: int | None = None) -> list[str]:
        space = self._mounts if mounts_fd is None else mounts_fd
        mount = "" if space is None else f"/proc/{os.getpid()}/fd/{space}"
        entry = launch.Entry(uid=uid, mount=mount, user=namespace.user, network=namespace.network)
        return entry.command("nsenter")


def _open_filter(refused: Sequence[str]) -> int | None:
    """Return a descriptor of the filter of system calls, the caller's to close."""
    program = seccomp.compose(without=refused)
    if program is None:
        return None
    made = os.memfd_create("hearth-filter")
    try:
        os.write(made, program)
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, launch.FIRST_FREE)
    finally:
        os.close(made)
