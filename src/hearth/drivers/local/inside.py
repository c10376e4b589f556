"""Paths below the root file system of an image, as its programs see them: links never lead outside."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Final

#: As in the kernel.
_MAX_LINKS: Final = 40


def follow(root: Path, path: str) -> PurePosixPath:
    """Return the path without links that a path means; parts of it need not exist. Blocks shortly.

    Raises:
        OSError: It leads through too many links.
    """
    pending = deque(path.split("/"))
    done: list[str] = []
    links = 0
    while pending:
        part = pending.popleft()
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            try:
                target = os.readlink(root.joinpath(*done, part))
            except OSError:  # it is no link, or is not there
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                done.clear()
            pending.extendleft(reversed(target.split("/")))
    return PurePosixPath("/", *done)


def place(root: Path, path: str) -> Path:
    """Return where on this machine a file is that a program of the image knows by ``path``. Blocks shortly.

    Raises:
        OSError: It leads through too many links.
    """
    return root.joinpath(*follow(root, path).parts[1:])


def make_folder(root: Path, path: PurePosixPath) -> None:
    """Make a folder of a path without links. What is no folder on the way is replaced: nothing is made outside.

    Raises:
        OSError: The disk refused.
    """
    below = root
    for part in path.parts[1:]:
        below /= part
        if below.is_symlink() or not below.is_dir():
            below.unlink(missing_ok=True)
            below.mkdir()
            below.chmod(0o755)


def make_file(root: Path, path: PurePosixPath) -> None:
    """Make an empty file, unless there is a file, in the same way.

    Raises:
        OSError: The disk refused.
    """
    make_folder(root, path.parent)
    made = root.joinpath(*path.parts[1:])
    if made.is_symlink() or not made.is_file():
        if made.is_dir() and not made.is_symlink():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        made.unlink(missing_ok=True)
        made.touch()
        made.chmod(0o644)
