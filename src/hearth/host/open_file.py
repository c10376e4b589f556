"""A file that a node keeps open although other programs may delete it."""

from __future__ import annotations

import os
from pathlib import Path

from hearth.models.errors import StoreUnavailable


class OpenFile:
    """Notices that a path no longer leads to the file that was opened: what is written then is lost with the process.

    Args:
        path: Of a file that is there; where there is none, nothing is ever noticed.
    """

    __slots__ = ("_identity", "_path")

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._identity = _identity(self._path)

    def check(self) -> None:
        """Compare; takes a microsecond.

        Raises:
            StoreUnavailable: The file was deleted, moved or replaced.
        """
        if self._identity is not None and _identity(self._path) != self._identity:
            raise StoreUnavailable(
                f"{self._path} was deleted, moved or replaced while this node has it open;"
                " stop the node, put the file back, and start it again"
            )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
