"""Memory limits by control groups, version 1 or 2, where this process may make some."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_MIB: Final = 1024 * 1024
#: So that a runaway function cannot exhaust the machine's process table.
_NAME: Final = "hearth"


class MemoryGroup:
    """One container's control group."""

    def __init__(self, path: Path, counter: str) -> None:
        self.path = path
        self._counter = counter

    @property
    def procs(self) -> Path:
        """Writing a process id here moves the process in."""
        return self.path / "cgroup.procs"

    def oom_kills(self) -> int:
        """How often the limit killed a process."""
        with contextlib.suppress(OSError):
            for line in (self.path / self._counter).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return 0

    def pids(self) -> list[int]:
        """The processes inside."""
        with contextlib.suppress(OSError):
            return [int(line) for line in self.procs.read_text().split()]
        return []

    def remove(self) -> bool:
        """Remove it; false while processes are still inside."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


class MemoryGroups:
    """The control groups of one node, under one folder of its own.

    Args:
        root: The folder, which exists.
        version: Of the control group file system.
    """

    def __init__(self, root: Path, version: int) -> None:
        self._root = root
        self._version = version

    def make(self, name: str, memory_mib: int) -> MemoryGroup:
        """A group whose processes together may use this much, without swap."""
        path = self._root / name
        path.mkdir()
        limit = str(memory_mib * _MIB)
        if self._version == 1:
            (path / "memory.limit_in_bytes").write_text(limit)
            with contextlib.suppress(OSError):  # absent where swap is not accounted
                (path / "memory.memsw.limit_in_bytes").write_text(limit)
            return MemoryGroup(path, "memory.oom_control")
        (path / "memory.max").write_text(limit)
        with contextlib.suppress(OSError):
            (path / "memory.swap.max").write_text("0")
        return MemoryGroup(path, "memory.events")

    def remove_leftovers(self) -> int:
        """Remove the groups of an earlier run; how many."""
        left = [MemoryGroup(path, "") for path in self._root.iterdir() if path.is_dir()]
        for group in left:
            for pid in group.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        return sum([group.remove() for group in left])

    def close(self) -> None:
        """Remove the node's own folder, if it is empty."""
        with contextlib.suppress(OSError):
            self._root.rmdir()


def find(node: str, root: Path = Path("/sys/fs/cgroup")) -> MemoryGroups | None:
    """A place for groups, if this process may make any. Tries it out: for start-up only."""
    for version, base in ((1, root / "memory"), (2, root)):
        if version == 2 and not (base / "cgroup.controllers").exists():
            continue
        if version == 1 and not (base / "memory.limit_in_bytes").exists():
            continue
        groups = MemoryGroups(base / _NAME / node, version)
        try:
            groups._root.mkdir(parents=True, exist_ok=True)
            if version == 2:
                for folder in (base, base / _NAME, groups._root):
                    (folder / "cgroup.subtree_control").write_text("+memory")
            groups.remove_leftovers()
            groups.make("probe", 64).remove()
        except OSError:
            groups.close()
            continue
        return groups
    return None
