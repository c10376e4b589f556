"""Listen on a Unix socket: private from its first moment, and never in the place of one that somebody serves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hearth.models.errors import StartUpError

#: Bytes of a path that the kernel takes, without the zero at its end (unix(7)).
_MAX_PATH_BYTES: Final = 107
_BACKLOG: Final = 2048


@contextlib.contextmanager
def unix_listener(path: Path, mode: int) -> Iterator[socket.socket]:
    """Listen on a path; leaving it removes the socket.

    A lock beside the socket tells nodes apart that start at the same time: only its holder creates or removes the
    socket. The socket of a node that died has no listener, and is replaced.

    Args:
        path: Absolute.
        mode: The permissions of the socket: who may connect.

    Raises:
        StartUpError: Another program serves there, or the path is not one for a socket of this user.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise StartUpError(f"unix socket {path}: longer than {_MAX_PATH_BYTES} bytes; choose a shorter path")
    with _lock(path.with_name(f"{path.name}.lock"), path):
        _clear(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The mode that bind() gives to the file: nobody can connect before it is right.
            os.fchmod(listener.fileno(), mode)
            try:
                listener.bind(str(path))
                path.chmod(mode)  # what the umask has taken
                listener.listen(_BACKLOG)
            except OSError as exc:
                raise StartUpError(f"unix socket {path}: {exc.strerror}; choose another path") from exc
            made = path.lstat()
            try:
                yield listener
            finally:
                with contextlib.suppress(OSError):  # removed already
                    if os.path.samestat(path.lstat(), made):
                        path.unlink()


@contextlib.contextmanager
def _lock(lock: Path, path: Path) -> Iterator[None]:
    """Hold a lock file, and remove it at the end."""
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartUpError(f"unix socket {path}: {lock}: {exc.strerror}; choose another path") from exc
        with os.fdopen(descriptor) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StartUpError(f"unix socket {path}: in use by another node; choose another path") from None
            if not _is_at(lock, file.fileno()):
                continue  # the node that held it has removed it
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    lock.unlink()
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear(path: Path) -> None:
    """Remove the socket of a program that has ended.

    Raises:
        StartUpError: The program still serves, or this is not a socket, or one of another user.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartUpError(f"unix socket {path}: a file is there that is not a socket; choose another path")
    if found.st_uid != os.geteuid():
        raise StartUpError(f"unix socket {path}: belongs to user {found.st_uid}; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:  # it has a listener whose backlog is full, or one of another type
            pass
    raise StartUpError(f"unix socket {path}: another program listens there; choose another path")
