"""Files and folders that only the server's user may enter, read or write, whatever its umask."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FOLDER: Final = 0o700
_FILE: Final = 0o600
_OTHERS: Final = 0o077


class NotPrivate(Exception):
    """The file is not one that only the server's user can have written and can read; the text says why."""


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing.

    Raises:
        OSError: It cannot be made.
    """
    try:
        folder.mkdir(_FOLDER, exist_ok=True)
    except FileNotFoundError:
        make_folder(folder.parent)
        folder.mkdir(_FOLDER, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file, or take the rights of others on an existing one, and on what SQLite keeps beside it.

    Raises:
        OSError: It cannot be made.
    """
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE))
        return
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        _close_to_others(name)


def create(path: Path, text: str) -> bool:
    """Create a file with this text, whole or not at all; return whether it was not there yet.

    Where two create it at once, both find the one that was first.

    Raises:
        OSError: It cannot be created.
    """
    make_folder(path.parent)
    with written_beside(path, text.encode()) as made, contextlib.suppress(FileExistsError):
        os.link(made, path)
        sync_folder(path.parent)
        return True
    return False


def replace(path: Path, text: str) -> None:
    """Replace a file, or create it, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with written_beside(path, text.encode()) as made:
        os.replace(made, path)
    sync_folder(path.parent)


def read_own(path: Path, owner: int, most_bytes: int) -> str:
    """Return the ASCII text of a file that only its owner reads.

    Args:
        path: Of the file.
        owner: The user whose file it has to be: another one knows what is in it.
        most_bytes: Longer files are cut.

    Raises:
        OSError: It cannot be read.
        NotPrivate: It is not a regular file, belongs to another user, or others may read it.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # never wait for a pipe
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise NotPrivate("is not a regular file")
        text = file.read(most_bytes).decode("ascii", "replace").strip()
    if found.st_uid != owner:
        raise NotPrivate(f"belongs to user {found.st_uid}, not to user {owner} of the node")
    if found.st_mode & _OTHERS:
        raise NotPrivate("other users may read it")
    return text


def close_to_others(folder: Path) -> None:
    """Take the rights of others on an existing folder and the files in it. Folders in it are left as they are.

    A folder that others use as well, such as a home or /tmp, is left alone.
    """
    found = folder.stat()
    if found.st_mode & stat.S_ISVTX or Path.home().is_relative_to(folder):
        return
    _close_to_others(folder)
    for path in folder.iterdir():
        if path.is_file():
            _close_to_others(path)


@contextlib.contextmanager
def written_beside(path: Path, content: bytes, *, mode: int = _FILE, is_durable: bool = True) -> Iterator[str]:
    """Yield a new file beside ``path`` with this content, to take its place; remove what is left of it.

    Args:
        path: The file to replace.
        content: All of it.
        mode: Its permissions.
        is_durable: The content has reached the disk when the file is yielded.
    """
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # its mode is 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if mode != _FILE:
                os.fchmod(descriptor, mode)
            if is_durable:
                os.fsync(descriptor)
        yield made
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has taken the place of ``path``
            os.unlink(made)


def sync_folder(folder: Path) -> None:
    """Return once the names in a folder have reached the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _close_to_others(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone, or the file of another user, who decides about it
        mode = path.lstat().st_mode
        if mode & _OTHERS and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
