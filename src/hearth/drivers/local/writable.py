"""Root file systems that one container may write to: an overlay over the image, thrown away with the container.

What a container writes is in memory (tmpfs): it counts as memory of the function, no disk fills up, and nothing has to
be removed. The overlay is mounted over the image's folder, in a mount namespace that only the container has.

* A server that runs as root makes the overlay. Files of images belong to root of the machine, so they are shown by an
  ID-mapped mount, as files of the function's user (Linux 5.19).
* Functions of another server run as its own user, which owns those files. There the child makes the overlay on its way
  to the sandbox, in a user namespace (Linux 5.11).
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hearth.drivers.local import mounts, programs
from hearth.drivers.local.bundle import LAYERS

#: Files and folders for each MiB: they take memory of the machine, too.
_FILES_PER_MIB: Final = 256
_LIMIT_S: Final = 10
#: Users whose user namespaces are kept: more apps than these at once wait a few milliseconds for a new one.
_MAX_MAPS: Final = 64
_OVERLAY: Final = """\
mount -t tmpfs -o "mode=0711,$3" none "$1" && cd "$1" && mkdir upper work &&
mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work,userxattr" none "$2" && cd / && shift 3 && exec "$@"
"""


class Overlays:
    """Makes overlays for the containers of one node.

    Args:
        bundles: The folder of bundles.

    Attributes:
        missing: Why there are none; empty if there are.
    """

    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles
        #: No function needs the layers themselves: the memory of an overlay is mounted over them.
        self._scratch = bundles / LAYERS
        self._maps: dict[int, int] = {}
        self._lock = threading.Lock()
        self.missing = "the node has not started"

    def try_out(self, base: int | None, uid: int | None) -> None:
        """Find out whether overlays work here, and note why not. Blocks: for start-up only.

        Args:
            base: The mount namespace of functions; ``None`` is the server's.
            uid: A user of functions; ``None`` is the server's.
        """
        try:
            self._scratch.mkdir(exist_ok=True)
            self._scratch.chmod(0o711)
            with tempfile.TemporaryDirectory(prefix=".overlay-", dir=self._bundles) as folder:
                os.chmod(folder, 0o755)  # noqa: S103  # as that of an image
                if uid is not None:
                    os.close(self.make(base, Path(folder), uid, 1))
                    self.missing = ""
                else:
                    self.missing = _said([*self.enter(Path(folder), 1), "/bin/true"])
        except OSError as exc:
            self.missing = exc.strerror or str(exc)

    def forget(self, uid: int) -> None:
        """No container has this user any more."""
        with self._lock:
            if (found := self._maps.pop(uid, None)) is not None:
                os.close(found)

    def close(self) -> None:
        """Give back what they share."""
        while self._maps:
            os.close(self._maps.popitem()[1])

    def make(self, base: int | None, root: Path, uid: int, size_mib: int) -> int:
        """Make an overlay over a folder, owned by a user; return its mount namespace, the caller's to close. Blocks.

        Raises:
            OSError: This kernel has no such overlays, or the process may not make them.
        """
        with self._lock:
            owner = os.dup(self._map(uid))
        try:
            return mounts.make_overlay(base, root, self._scratch, _options(size_mib), uid, owner)
        finally:
            os.close(owner)

    def enter(self, root: Path, size_mib: int) -> list[str]:
        """Return the start of a command that makes an overlay over a folder of its own user, and goes on there."""
        lower = os.path.relpath(root, self._scratch)  # options of a mount have no escape for commas in other folders
        unshare = ["unshare", "--user", "--map-root-user", "--mount", "--", "/bin/sh", "-c", _OVERLAY, "overlay"]
        return [*unshare, str(self._scratch), lower, _options(size_mib)]

    def _map(self, uid: int) -> int:
        """Return a user namespace that shows root's files as those of a user."""
        if (found := self._maps.pop(uid, None)) is None:
            found = _make_map(uid)
            if len(self._maps) >= _MAX_MAPS:
                os.close(self._maps.pop(next(iter(self._maps))))
        self._maps[uid] = found  # the last to go
        return found


def _options(size_mib: int) -> str:
    return f"size={size_mib}m,nr_inodes={size_mib * _FILES_PER_MIB}"


def _make_map(uid: int) -> int:
    """Return a new user namespace whose root is a user of the machine. A server with threads cannot make one itself."""
    command = ["unshare", "--user", "--", "/bin/sh", "-c", "echo; read -r _"]
    env = {"PATH": programs.PATH}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise OSError(errno.EPERM, "a user namespace cannot be made")
            for table in ("uid_map", "gid_map"):
                Path(f"/proc/{process.pid}/{table}").write_text(f"0 {uid} 1")
            return os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            process.stdin.close()


def _said(command: Sequence[str]) -> str:
    """Return what a command says if it fails; empty if it does not."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        return str(exc)
    return "" if done.returncode == 0 else done.stderr.strip() or f"ended with status {done.returncode}"
