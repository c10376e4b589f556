"""One network namespace, and the helper process that connects it. Everything here blocks: for a thread.

The namespace has no name and no process of its own: descriptors of the server keep it, so it goes when the server
goes, however that ends. A server that does not run as root owns it through a user namespace, in which it is root.

The helper (slirp4netns) is a network stack in user space: what leaves the namespace are connections of that process. It
ends when the server ends. The namespace refuses private addresses and those of the machine by its routes, which
functions cannot change: they have no rights in the namespace that owns the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import resource
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO, Final

from hearth.drivers.local import launch, programs
from hearth.drivers.local.network.addresses import VIRTUAL, Network

PACKAGES: Final = "slirp4netns and iproute2"
LIMIT_S: Final = 10.0
_TAP: Final = "tap0"
#: The largest one packet may be: fewer, larger packets pass through the helper.
_MTU: Final = 65520
#: In the helper: the end of the server, and what it says when it is ready. Others that it inherits are closed.
_EXIT_FD, _READY_FD = 3, 4
#: Descriptors of a helper, one for each connection of its app. libslirp buffers up to 256 KiB for one, which no
#: container reserves: this bounds what a hostile function takes from the machine to half a gibibyte.
_OPEN_FILES: Final = 2048
_HOLD: Final = 'printf "%s\\n" "$1" | ip -batch - && echo ready && read -r _'


class NetworkFailed(Exception):
    """A network cannot be set up here; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """The programs that set up a network, by their paths."""

    slirp4netns: str
    unshare: str
    nsenter: str
    ip: str

    @classmethod
    def find(cls) -> Tools:
        """Find them.

        Raises:
            NetworkFailed: One is missing.
        """
        found = {field.name: shutil.which(field.name, path=programs.PATH) for field in dataclasses.fields(cls)}
        missing = sorted(name for name, path in found.items() if path is None)
        if missing:
            raise NetworkFailed(f"{missing[0]} is not installed; install {PACKAGES}")
        return cls(**{name: path for name, path in found.items() if path is not None})


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """The paths by which other programs join namespaces: of users (empty: the server's), and of the network."""

    user: str = ""
    network: str = ""


NOTHING: Final = Joined()


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, kept by descriptors. ``user`` is the user namespace that owns it; ``None`` for root's."""

    network: int
    user: int | None

    @property
    def paths(self) -> Joined:
        """The paths by which other programs join it."""
        folder = f"/proc/{os.getpid()}/fd"
        return Joined("" if self.user is None else f"{folder}/{self.user}", f"{folder}/{self.network}")

    def close(self) -> None:
        """Give it up: it goes with the last process that is in it."""
        for descriptor in (self.network, self.user):
            if descriptor is not None:
                os.close(descriptor)

    def refuse(self, tools: Tools, networks: Iterable[Network]) -> None:
        """Let connections to these networks fail.

        Raises:
            NetworkFailed: The routes cannot be set.
        """
        paths = self.paths
        join = [f"--user={paths.user}", "--preserve-credentials"] if paths.user else []
        command = [tools.nsenter, *join, f"--net={paths.network}", "--", tools.ip, "-batch", "-"]
        try:
            done = subprocess.run(command, input=_routes(networks), capture_output=True, text=True, timeout=LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NetworkFailed(f"routes: {exc}") from exc
        if done.returncode:
            raise NetworkFailed(f"routes: {done.stderr.strip()}")


@dataclasses.dataclass(frozen=True, slots=True)
class Helper:
    """A running helper: its process, the leader of its own group, and the descriptor whose end ends it."""

    pid: int
    lifeline: int


def make(tools: Tools, refused: Iterable[Network]) -> Namespace:
    """Make a namespace that refuses these networks and reaches nothing else yet.

    Raises:
        NetworkFailed: Namespaces or routes cannot be made here.
    """
    owner = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    batch = f"link set lo up\n{_routes(refused)}"
    command = [tools.unshare, *owner, "--net", "--", "/bin/sh", "-c", _HOLD, "namespace", batch]
    environment = {"PATH": programs.PATH}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            said = _read(holder.stdout.fileno(), len(b"ready\n"))
            if said != b"ready\n":
                _kill(holder)
                raise NetworkFailed(f"network namespaces cannot be made here: {_said(holder.stderr) or 'no answer'}")
            with contextlib.ExitStack() as undo:
                network = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
                undo.callback(os.close, network)
                user = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY) if owner else None
                undo.pop_all()
        finally:
            _kill(holder)
    return Namespace(network, user)


def start_helper(tools: Tools, namespace: Namespace, hidden: Sequence[int]) -> Helper:
    """Start the helper of a namespace, and wait until it is ready.

    Args:
        tools: What starts it.
        namespace: That it connects.
        hidden: Descriptors that it must not inherit.

    Raises:
        NetworkFailed: It did not get ready.
    """
    paths = namespace.paths
    command = [tools.slirp4netns, "--configure", f"--mtu={_MTU}", "--disable-host-loopback", f"--cidr={VIRTUAL}"]
    command += ["--enable-seccomp", f"--exit-fd={_EXIT_FD}", f"--ready-fd={_READY_FD}"]
    command += ["--netns-type=path", *([f"--userns-path={paths.user}"] if paths.user else [])]
    if not paths.user:
        # Its sandbox needs more than one user in the namespace, which an ordinary user cannot have. It detaches the
        # root that it comes from, with all mounts below, but makes that root alone private: unless it starts in a
        # namespace without shared mounts, the mounts below shared ones vanish from the whole machine.
        command = [tools.unshare, "--mount", "--propagation=private", "--", *command, "--enable-sandbox"]
    command += [paths.network, _TAP]
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile())
        theirs, ours = _pipe(stack)
        ready, theirs_ready = _pipe(stack)
        pid = os.posix_spawn(
            command[0],
            command,
            {"PATH": programs.PATH},
            file_actions=[
                *[(os.POSIX_SPAWN_CLOSE, fd) for fd in hidden],
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, said.fileno(), 2),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), _EXIT_FD),
                (os.POSIX_SPAWN_DUP2, theirs_ready.fileno(), _READY_FD),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=launch.SIGNALS,
        )
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
        with contextlib.suppress(ProcessLookupError):  # it has ended: no answer will say so
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        theirs_ready.close()  # so that the pipe ends with the helper
        if _read(ready.fileno(), 1) != b"1":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            said.seek(0)
            raise NetworkFailed(f"slirp4netns does not work here: {_said(said) or 'no answer'}")
        return Helper(pid, os.dup(ours.fileno()))


def _routes(networks: Iterable[Network]) -> str:
    return "".join(f"route replace prohibit {network}\n" for network in networks)


def _read(descriptor: int, size: int) -> bytes:
    """Read ``size`` bytes; fewer at the end of the file or of the time."""
    found = b""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while len(found) < size and waiting.poll(LIMIT_S * 1000):
        data = os.read(descriptor, size - len(found))
        if not data:
            break
        found += data
    return found


def _kill(holder: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(holder.pid, signal.SIGKILL)


def _said(file: IO[bytes]) -> str:
    """Return the end of what a program has written."""
    lines = file.read().decode(errors="replace").strip().splitlines()
    return "; ".join(lines[-2:])


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Return both ends, above the numbers that the helper gets."""
    ends = []
    for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True):
        ends.append(stack.enter_context(os.fdopen(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, launch.FIRST_FREE), mode, 0)))
        os.close(end)
    return ends[0], ends[1]
