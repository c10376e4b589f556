"""The mount namespace of functions on a server that runs as root.

A function's user cannot pass through the server's data folder, which only the server may enter, nor through a folder
such as ``/root``; and bubblewrap, which runs as that user, can show a function only what that user reaches. So
functions start in a mount namespace of their own. There, each ancestor that stops other users is covered by an empty
file system that has just the way to the wanted folders, under their own names.

The namespace has device nodes of its own, too: whatever happens to their modes or owners, those of the machine are
other nodes.

A container that may write to the root file system of its image has a namespace of its own, made from that one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

_NEW_MOUNTS: Final = 0x20000
_BIND: Final = 0x1000
_RECURSIVE: Final = 0x4000
_SLAVE: Final = 1 << 19
_DETACH: Final = 2
#: Numbers of system calls that the C library has no functions for; those of all machines since 2019.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE: Final = 1
_EMPTY_PATH: Final = 0x1000
_FROM_DESCRIPTOR: Final = 4
_READ_ONLY: Final = 1
_MAPPED: Final = 0x100000
_HERE: Final = -100
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
    return _in_thread(lambda: _make(folders))


def make_overlay(base: int | None, root: Path, scratch: Path, options: str, uid: int, owner: int) -> int:
    """Make a namespace in which a folder can be written to, in memory; return a descriptor, the caller's to close.

    Its files belong to the user there. Blocks shortly.

    Args:
        base: The mount namespace that it is made from; ``None`` is the server's.
        root: The folder; its files belong to root.
        scratch: A folder that nobody needs there.
        options: Of the file system in memory that holds what is written.
        uid: The user, and the group.
        owner: A user namespace whose root is that user.

    Raises:
        OSError: This process may not, or the kernel cannot.
    """
    return _in_thread(lambda: _make_overlay(base, root, scratch, options, uid, owner))


def _in_thread(made: Callable[[], int]) -> int:
    """Call it in a thread that ends: a thread belongs to a namespace, and leaves the one that it has joined with it."""
    found: list[int | OSError] = []

    def call() -> None:
        try:
            found.append(made())
        except OSError as exc:
            found.append(exc)

    thread = threading.Thread(target=call, name="mounts")
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _make_overlay(base: int | None, root: Path, scratch: Path, options: str, uid: int, owner: int) -> int:
    _call("unshare", _NEW_MOUNTS)
    if base is not None:
        _call("setns", base, _NEW_MOUNTS)
        _call("unshare", _NEW_MOUNTS)
    _mount("none", "/", "", _RECURSIVE | _SLAVE)
    _mount("tmpfs", str(scratch), "tmpfs", 0, f"mode=0711,{options}")
    held = os.open(scratch, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in ("lower", "upper", "work"):
            os.mkdir(name, dir_fd=held)
        os.chmod("upper", 0o755, dir_fd=held)  # noqa: S103  # the root folder of the container
        os.chown("upper", uid, uid, dir_fd=held)
        os.fchdir(held)  # of this thread alone, since the first line; options have no escape for commas in paths
    finally:
        os.close(held)
    _show_as(owner, root, "lower")
    _mount("overlay", str(root), "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work")
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)


def _show_as(owner: int, source: Path, target: str) -> None:
    """Show a folder at another place, read-only, its files as those of the root of a user namespace."""
    tree = _call("syscall", _OPEN_TREE, _HERE, os.fsencode(source), _CLONE | os.O_CLOEXEC)
    try:
        attributes = struct.pack("=QQQQ", _READ_ONLY | _MAPPED, 0, 0, owner)
        _call("syscall", _MOUNT_SETATTR, tree, b"", _EMPTY_PATH, attributes, len(attributes))
        _call("syscall", _MOVE_MOUNT, tree, b"", _HERE, os.fsencode(target), _FROM_DESCRIPTOR)
    finally:
        os.close(tree)


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


def _call(name: str, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    long = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = getattr(libc, name)(*long)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
