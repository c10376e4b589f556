"""The mount namespace of functions on a server that runs as root.

A function's user cannot pass through the server's data folder, which only the server may enter, nor through a folder
such as ``/root``; and bubblewrap, which runs as that user, can show a function only what that user reaches. So
functions start in a mount namespace of their own. There, each ancestor that stops other users is covered by an empty
file system that has just the way to the wanted folders, under their own names.

The namespace has device nodes of its own, too: whatever happens to their modes or owners, those of the machine are
other nodes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

_NEW_MOUNTS: Final = 0x20000
_BIND: Final = 0x1000
_RECURSIVE: Final = 0x4000
_SLAVE: Final = 1 << 19
_DETACH: Final = 2
_DEVICES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}


def blocking(path: Path) -> Path | None:
    """Return the topmost ancestor of a folder that other users cannot enter; ``None`` if they reach the folder."""
    for folder in [*reversed(path.parents), path]:
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def make(folders: Collection[Path]) -> int:
    """Make the namespace in which every user reaches these folders; return a descriptor, the caller's to close.

    Blocks shortly.

    Raises:
        OSError: This process may not make mount namespaces, or a folder does not exist.
    """
    found: list[int | OSError] = []

    def make_in_thread() -> None:
        try:
            found.append(_make(folders))
        except OSError as exc:
            found.append(exc)

    # A namespace belongs to a thread: this one joins it, and ends.
    thread = threading.Thread(target=make_in_thread, name="mounts")
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _make(folders: Collection[Path]) -> int:
    _call("unshare", _NEW_MOUNTS)
    _mount("none", "/", "", _RECURSIVE | _SLAVE)
    _replace_devices()
    with contextlib.ExitStack() as stack:
        covered: dict[Path, list[tuple[Path, int]]] = {}
        for folder in folders:
            if (obstacle := blocking(folder)) is not None:
                held = os.open(folder, os.O_PATH | os.O_DIRECTORY)
                stack.callback(os.close, held)
                covered.setdefault(obstacle, []).append((folder, held))
        for obstacle, below in covered.items():
            _mount("tmpfs", str(obstacle), "tmpfs", 0, "mode=0711,size=64k")
            for folder, held in below:
                for step in [*reversed(folder.parents), folder]:
                    if step.is_relative_to(obstacle) and not step.exists():
                        step.mkdir()
                        step.chmod(0o711)  # whatever this process masks
                _mount(f"/proc/thread-self/fd/{held}", str(folder), "", _BIND)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)


def _replace_devices() -> None:
    """Put device nodes of our own over those of the machine, where this process may make any."""
    folder = "/dev"
    held = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        _mount("tmpfs", folder, "tmpfs", 0, "mode=0755,size=64k")
        try:
            for name, (major, minor) in _DEVICES.items():
                target = f"/proc/thread-self/fd/{held}/{name}"
                if os.path.exists(target):
                    os.mknod(f"{folder}/{name}", stat.S_IFCHR, os.makedev(major, minor))
                    os.chmod(f"{folder}/{name}", 0o666)  # noqa: S103  # as everywhere: nothing is kept in them
                    _mount(f"{folder}/{name}", target, "", _BIND)
        except PermissionError:  # no right to make devices: those of the machine stay in view
            return
        finally:
            _call("umount2", folder.encode(), _DETACH)
    finally:
        os.close(held)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call("mount", os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode() or None)


def _call(name: str, *arguments: bytes | int | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
