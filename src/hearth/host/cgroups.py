"""Limit memory, CPU and processes by control groups, version 1 or 2, where this process may create them.

Version 1 has one tree for each resource, version 2 one for all. A container's group is one folder in each tree.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hearth.aio.clock import Clock, pause

_MIB: Final = 1024 * 1024
_NAME: Final = "hearth"
#: A group empties a moment after its processes are dead; looked at ever less often.
_FIRST_TRY_S: Final = 0.002
_LAST_TRY_S: Final = 0.5
#: Files by version: what the limit of memory is, what is used, where kills by the limit are counted.
_LIMIT: Final = {1: "memory.limit_in_bytes", 2: "memory.max"}
_USED: Final = {1: "memory.usage_in_bytes", 2: "memory.current"}
_KILLS: Final = {1: "memory.oom_control", 2: "memory.events"}
#: Within each period a group gets its quota of CPU time; a long one for small quotas, as the kernel has a least one.
_PERIOD_US: Final = 100_000
_LONGEST_PERIOD_US: Final = 1_000_000
_MIN_QUOTA_US: Final = 1000
#: What a process enters by. A process of one thread that moves that thread, and itself, need not wait until no process
#: of the machine forks or ends, which takes the kernel ten milliseconds. Version 2 moves no thread alone.
_ENTRY: Final = {1: "tasks", 2: "cgroup.procs"}
#: Files by version: what freezes a group's processes, and what shows that they are frozen.
_FREEZE: Final = {1: ("freezer.state", "FROZEN", "THAWED"), 2: ("cgroup.freeze", "1", "0")}
_FROZEN: Final = {1: ("freezer.state", "FROZEN"), 2: ("cgroup.events", "frozen 1")}
_FREEZER: Final = "freezer"


class Group:
    """One container's control group.

    Args:
        folders: In each tree; the first is that of memory.
        version: Of the control groups.
        freezer: The one that freezes its processes, if there is any.
    """

    def __init__(self, folders: Sequence[Path], version: int, freezer: Path | None = None) -> None:
        self._folders = folders
        self._version = version
        self._freezer = freezer
        self._is_frozen = False

    def __repr__(self) -> str:
        return f"<Group {self._folders[0]}>"

    @property
    def entries(self) -> list[Path]:
        """A process of one thread that writes 0 to each moves in."""
        return [folder / _ENTRY[self._version] for folder in self._folders]

    def create(self) -> None:
        """Make its folders.

        Raises:
            OSError: One cannot be made.
        """
        for folder in self._folders:
            folder.mkdir()

    def oom_kills(self) -> int:
        """Return how often the memory limit killed a process."""
        with contextlib.suppress(OSError):
            for line in (self._folders[0] / _KILLS[self._version]).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return 0

    def memory_bytes(self) -> int:
        """Return the present use of the group's processes."""
        with contextlib.suppress(OSError):
            return int((self._folders[0] / _USED[self._version]).read_text())
        return 0

    def pids(self) -> list[int]:
        """Return the ids of the processes in the group."""
        with contextlib.suppress(OSError):
            found = [int(line) for line in (self._folders[0] / "cgroup.procs").read_text().split()]
            return [pid for pid in found if pid]  # 0 stands for a process that this process's namespace does not have
        return []

    async def set_frozen(self, is_frozen: bool, clock: Clock) -> None:
        """Freeze or thaw the processes inside, and wait until they are; nothing happens where nothing can freeze them.

        Raises:
            OSError: The system refuses.
        """
        if self._freezer is None or self._is_frozen == is_frozen:
            return
        name, frozen, thawed = _FREEZE[self._version]
        self._is_frozen = True  # perhaps; a thaw too many does no harm
        (self._freezer / name).write_text(frozen if is_frozen else thawed)
        wait_s = _FIRST_TRY_S
        while self._shows_frozen() != is_frozen:
            await pause(clock, wait_s)
            wait_s = min(2 * wait_s, _LAST_TRY_S)
        self._is_frozen = is_frozen

    def suspect_frost(self) -> None:
        """Thaw it before its processes are killed: an earlier run may have frozen them."""
        self._is_frozen = True

    def _shows_frozen(self) -> bool:
        assert self._freezer is not None
        name, line = _FROZEN[self._version]
        return line in (self._freezer / name).read_text().splitlines()

    def kill(self) -> None:
        """Kill the processes inside."""
        if self._is_frozen and self._freezer is not None:  # in version 1 a frozen process ends once it is thawed
            name, _, thawed = _FREEZE[self._version]
            with contextlib.suppress(OSError):
                (self._freezer / name).write_text(thawed)
            self._is_frozen = False
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
        roots: The node's folders by resource, memory first. In version 2 all are the same.
        version: Of the control groups.
    """

    def __init__(self, roots: Mapping[str, Path], version: int) -> None:
        self._roots = dict(roots)
        self._version = version

    def __repr__(self) -> str:
        return f"<Groups version={self._version} {','.join(self._roots)}>"

    @property
    def version(self) -> int:
        """Of the control groups: 1 or 2."""
        return self._version

    @property
    def limits_pids(self) -> bool:
        """True if the number of processes in a group can be limited."""
        return "pids" in self._roots

    @property
    def limits_cpu(self) -> bool:
        """True if the CPU time of a group can be limited."""
        return "cpu" in self._roots

    @property
    def freezes(self) -> bool:
        """True if the processes of a group can be frozen."""
        return (self._roots["memory"] / _FREEZE[2][0]).exists() if self._version == 2 else _FREEZER in self._roots

    def make(self, name: str, memory_mib: int, pids: int, cpu_milli: int = 0) -> Group:
        """Make a group whose processes share these limits.

        Args:
            name: Of the group.
            memory_mib: Memory, without swap.
            pids: Number of processes and threads; 0 means no limit.
            cpu_milli: Thousandths of a core; 0 means no limit.

        Raises:
            OSError: It cannot be made; nothing is left of it.
        """
        wanted = [root for resource, root in self._roots.items() if resource != "cpu" or cpu_milli]
        group = Group([root / name for root in dict.fromkeys(wanted)], self._version, self._freezer(name))
        try:
            try:
                group.create()
            except FileNotFoundError:  # somebody removed the node's folder
                self.restore()
                group.create()
            self._limit(name, memory_mib, pids, cpu_milli)
        except OSError:
            group.remove()
            raise
        return group

    def restore(self) -> None:
        """Create the node's folders again if they were removed. Blocks shortly.

        Raises:
            OSError: They cannot be made.
        """
        missing = {resource: root for resource, root in self._roots.items() if not root.is_dir()}
        for resource, root in missing.items():
            root.mkdir(parents=True, exist_ok=True)
            if self._version == 2:
                _control(root.parent, resource)
                _control(root, resource)
            _try_out(root)

    def leftovers(self) -> list[Group]:
        """Return the groups of an earlier run."""
        roots = list(dict.fromkeys(self._roots.values()))
        names = {path.name for root in roots for path in root.iterdir() if path.is_dir()}
        left = [Group([root / name for root in roots], self._version, self._freezer(name)) for name in names]
        for group in left:
            group.suspect_frost()
        return left

    def _freezer(self, name: str) -> Path | None:
        root = self._roots.get(_FREEZER) if self._version == 1 else self._roots["memory"]
        return None if root is None else root / name

    def close(self) -> None:
        """Remove the node's own folders, if they are empty."""
        for root in self._roots.values():
            with contextlib.suppress(OSError):
                root.rmdir()

    def _limit(self, name: str, memory_mib: int, pids: int, cpu_milli: int) -> None:
        memory, folder = str(memory_mib * _MIB), self._roots["memory"] / name
        (folder / _LIMIT[self._version]).write_text(memory)
        with contextlib.suppress(OSError):  # absent where swap is not accounted
            if self._version == 1:
                (folder / "memory.memsw.limit_in_bytes").write_text(memory)
            else:
                (folder / "memory.swap.max").write_text("0")
        if self.limits_pids:
            (self._roots["pids"] / name / "pids.max").write_text(str(pids or "max"))
        if cpu_milli and self.limits_cpu:
            folder, (quota_us, period_us) = self._roots["cpu"] / name, cpu_quota(cpu_milli)
            if self._version == 1:
                (folder / "cpu.cfs_period_us").write_text(str(period_us))
                (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (folder / "cpu.max").write_text(f"{quota_us} {period_us}")


def cpu_quota(cpu_milli: int) -> tuple[int, int]:
    """Return quota and period in microseconds. The kernel takes no quota below a millisecond."""
    period_us = _PERIOD_US if cpu_milli * _PERIOD_US >= 1000 * _MIN_QUOTA_US else _LONGEST_PERIOD_US
    return cpu_milli * period_us // 1000, period_us


def find(
    node: str, mount: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc"), *, freezes: bool = False
) -> Groups | None:
    """Return a place for groups, if this process may make any that limit memory. Tries it out: for start-up only.

    Args:
        node: Names the node's folder.
        mount: Where control groups are.
        proc: Where processes are.
        freezes: Groups are to be frozen; in version 1 that takes one more tree.

    Version 1 alone or beside version 2 has a tree for each resource. Version 2 alone has one tree: groups lie at its
    top, or below the group of this process, if that was delegated to it.
    """
    if (mount / "memory" / _LIMIT[1]).exists():
        names = ("memory", "pids", "cpu", *([_FREEZER] if freezes else []))
        usable = _usable(node, {name: mount / name for name in names})
        if "memory" in usable:
            return Groups(usable, 1)
    if (mount / "cgroup.controllers").exists():
        for top in dict.fromkeys((mount, _own_group(mount, proc))):
            usable = _delegated(node, top, is_own=top != mount)
            if "memory" in usable:
                return Groups(usable, 2)
    return None


def _usable(node: str, trees: Mapping[str, Path]) -> dict[str, Path]:
    """Return the node's folders in those trees of version 1 that it may write to."""
    usable = {}
    for name, tree in trees.items():
        root = tree / _NAME / node
        with contextlib.suppress(OSError):
            if (tree / "cgroup.procs").exists() and (name != "cpu" or (tree / "cpu.cfs_quota_us").exists()):
                root.mkdir(parents=True, exist_ok=True)
                _try_out(root)
                usable[name] = root
    return usable


def _own_group(mount: Path, proc: Path) -> Path:
    """Return the group of version 2 that this process is in."""
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return mount / line.removeprefix("0::/")
    return mount


def _delegated(node: str, top: Path, *, is_own: bool) -> dict[str, Path]:
    """Return the node's folder below ``top``, for each resource that is controlled there."""
    root = top / _NAME / node
    try:
        root.mkdir(parents=True, exist_ok=True)
        _try_out(root)
        if is_own:
            _step_aside(top)
    except OSError:
        return {}
    usable = {}
    for name in ("memory", "pids", "cpu"):
        with contextlib.suppress(OSError):
            for folder in (top, top / _NAME, root):
                _control(folder, name)
            usable[name] = root
    return usable


def _step_aside(top: Path) -> None:
    """Move the processes of a group into one below it: a group with processes of its own controls none below it."""
    beside = top / f"{_NAME}-server"
    beside.mkdir(exist_ok=True)
    for pid in (top / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (beside / "cgroup.procs").write_text(pid)


def _control(folder: Path, resource: str) -> None:
    (folder / "cgroup.subtree_control").write_text(f"+{resource}")


def _try_out(root: Path) -> None:
    probe = root / "probe"
    probe.mkdir(exist_ok=True)
    probe.rmdir()
