"""One node for a data folder: a second one is told who has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hearth.models.errors import StartUpError


@contextlib.contextmanager
def data_lock(folder: Path) -> Iterator[Callable[[str], None]]:
    """Hold a data folder; yields what notes the node's URL for those who come second.

    The lock ends with the process, however that ends.

    Raises:
        StartUpError: Another process holds it, or it cannot be written to.
    """
    path = folder / "hearth.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)
    except OSError as exc:
        raise StartUpError(f"FN_DATA_DIR={folder}: {exc.strerror}; choose a folder that can be written to") from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text().strip() or "another process"
            raise StartUpError(
                f"{folder}: this data folder is in use by {owner}; stop that, or set FN_DATA_DIR to another folder"
            ) from None

        def note(url: str) -> None:
            file.truncate(0)
            with contextlib.suppress(OSError):  # a full disk: who comes second is told without a name
                file.write(f"process {os.getpid()}, {url}".encode())

        note("which is starting")
        yield note
