"""Limits by control groups, version 1 or 2, where this process may make some.

Version 1 has one tree for each resource, version 2 one for all. A container's group is one folder in each tree.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hearth.clock import Clock, pause

_MIB: Final = 1024 * 1024
_NAME: Final = "hearth"
#: A group empties a moment after its processes are dead; looked at ever less often.
_FIRST_TRY_S: Final = 0.002
_LAST_TRY_S: Final = 0.5
#: Files by version: what the limit of memory is, what is used, where kills by the limit are counted.
_LIMIT: Final = {1: "memory.limit_in_bytes", 2: "memory.max"}
_USED: Final = {1: "memory.usage_in_bytes", 2: "memory.current"}
_KILLS: Final = {1: "memory.oom_control", 2: "memory.events"}
#: What a process enters by. A process of one thread that moves that thread, and itself, need not wait until no process
#: of the machine forks or ends, which takes the kernel ten milliseconds. Version 2 moves no thread alone.
_ENTRY: Final = {1: "tasks", 2: "cgroup.procs"}


class Group:
    """One container's control group.

    Args:
        folders: In each tree; the first is that of memory.
        version: Of the control groups.
    """

    def __init__(self, folders: Sequence[Path], version: int) -> None:
        self._folders = folders
        self._version = version

    def __repr__(self) -> str:
        return f"<Group {self._folders[0]}>"

    @property
    def entries(self) -> list[Path]:
        """A process of one thread that writes 0 to each moves in."""
        return [folder / _ENTRY[self._version] for folder in self._folders]

    def oom_kills(self) -> int:
        """How often the limit of memory killed a process."""
        with contextlib.suppress(OSError):
            for line in (self._folders[0] / _KILLS[self._version]).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return 0

    def memory_bytes(self) -> int:
        """What its processes use now."""
        with contextlib.suppress(OSError):
            return int((self._folders[0] / _USED[self._version]).read_text())
        return 0

    def pids(self) -> list[int]:
        """The processes inside."""
        with contextlib.suppress(OSError):
            return [int(line) for line in (self._folders[0] / "cgroup.procs").read_text().split()]
        return []

    def kill(self) -> None:
        """Kill the processes inside."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    async def clear(self, clock: Clock) -> None:
        """Kill what is inside and remove it, however long that takes."""
        wait_s = _FIRST_TRY_S
        while not self.remove():
            self.kill()
            await pause(clock, wait_s)
            wait_s = min(2 * wait_s, _LAST_TRY_S)

    def remove(self) -> bool:
        """Remove it; false while processes are still inside."""
        gone = True
        for folder in self._folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


class Groups:
    """The control groups of one node, in a folder of its own in each tree.

    Args:
        roots: The node's folders, memory first.
        version: Of the control groups.
    """

    def __init__(self, roots: Mapping[str, Path], version: int) -> None:
        self._roots = dict(roots)
        self._version = version

    @property
    def version(self) -> int:
        """Of the control groups: 1 or 2."""
        return self._version

    @property
    def limits_pids(self) -> bool:
        """How many processes a group has can be limited."""
        return "pids" in self._roots

    def make(self, name: str, memory_mib: int, pids: int) -> Group:
        """A group whose processes together may use this much memory, without swap, and be so many.

        Raises:
            OSError: It cannot be made; nothing is left of it.
        """
        group = Group([root / name for root in dict.fromkeys(self._roots.values())], self._version)
        try:
            self._make(group, name, str(memory_mib * _MIB), str(pids))
        except OSError:
            group.remove()
            raise
        return group

    def _make(self, group: Group, name: str, memory: str, pids: str) -> None:
        for entry in group.entries:
            entry.parent.mkdir()
        folder = self._roots["memory"] / name
        (folder / _LIMIT[self._version]).write_text(memory)
        with contextlib.suppress(OSError):  # absent where swap is not accounted
            if self._version == 1:
                (folder / "memory.memsw.limit_in_bytes").write_text(memory)
            else:
                (folder / "memory.swap.max").write_text("0")
        if self.limits_pids:
            (self._roots["pids"] / name / "pids.max").write_text(pids)

    def leftovers(self) -> list[Group]:
        """What an earlier run left."""
        roots = list(dict.fromkeys(self._roots.values()))
        names = {path.name for root in roots for path in root.iterdir() if path.is_dir()}
        return [Group([root / name for root in roots], self._version) for name in names]

    def close(self) -> None:
        """Remove the node's own folders, if they are empty."""
        for root in self._roots.values():
            with contextlib.suppress(OSError):
                root.rmdir()


def find(node: str, mount: Path = Path("/sys/fs/cgroup")) -> Groups | None:
    """A place for groups, if this process may make any that limit memory. Tries it out: for start-up only."""
    for version, trees in ((1, {name: mount / name for name in ("memory", "pids")}), (2, {"memory": mount})):
        if not (trees["memory"] / ("cgroup.controllers" if version == 2 else _LIMIT[1])).exists():
            continue
        usable = _usable(node, trees) if version == 1 else _delegated(node, mount)
        if "memory" in usable:
            return Groups(usable, version)
    return None


def _usable(node: str, trees: Mapping[str, Path]) -> dict[str, Path]:
    """The node's folders in those trees of version 1 that it may write to."""
    usable = {}
    for name, tree in trees.items():
        root = tree / _NAME / node
        with contextlib.suppress(OSError):
            if (tree / "cgroup.procs").exists():
                root.mkdir(parents=True, exist_ok=True)
                _try_out(root)
                usable[name] = root
    return usable


def _delegated(node: str, mount: Path) -> dict[str, Path]:
    """The node's folder in the one tree of version 2, for each resource that is controlled there."""
    root = mount / _NAME / node
    try:
        root.mkdir(parents=True, exist_ok=True)
        _try_out(root)
    except OSError:
        return {}
    usable = {}
    for name in ("memory", "pids"):
        with contextlib.suppress(OSError):
            for folder in (mount, mount / _NAME, root):
                (folder / "cgroup.subtree_control").write_text(f"+{name}")
            usable[name] = root
    return usable


def _try_out(root: Path) -> None:
    probe = root / "probe"
    probe.mkdir(exist_ok=True)
    probe.rmdir()
