"""Who listens on a port of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LISTENS: Final = "0A"  # TCP_LISTEN, as the kernel writes it


def holder_of(port: int, proc: Path = Path("/proc")) -> str:
    """The process that listens, as ``process 123 (nginx)``; where that cannot be seen ``another process``."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_target(entry) in sockets for entry in (folder / "fd").iterdir()):
                name = (folder / "comm").read_text().strip()
                return f"process {folder.name} ({name})"
    return "another process"


def _target(entry: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(entry.readlink())
    return ""


def _inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
