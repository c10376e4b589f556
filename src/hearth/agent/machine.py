"""How much memory and CPU this node may give to containers (agent specification 6.2, 6.3)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hearth.agent.resources import Amount
from hearth.models.errors import StartUpError

_MIB: Final = 1024 * 1024
_MIN_HEADROOM_MIB: Final = 256
_MAX_HEADROOM_MIB: Final = 5 * 1024
_MIN_MEMORY_MIB: Final = 256


def detect(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Amount:
    """What containers may use together on this machine. Blocks shortly: for start-up only.

    Raises:
        StartUpError: There is not enough memory, or the kernel does not tell.
    """
    available = available_memory_mib((proc / "meminfo").read_text())
    if (limit := _cgroup_room_mib(proc, cgroup)) is not None:
        available = min(available, limit)
    return Amount(usable_memory_mib(available), _cpu_milli(proc, cgroup))


def available_memory_mib(meminfo: str) -> int:
    """``MemAvailable`` of /proc/meminfo, in MiB.

    Raises:
        StartUpError: The kernel does not report it.
    """
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) // 1024
    raise StartUpError("/proc/meminfo has no MemAvailable: set FN_MAX_TOTAL_MEMORY to the bytes containers may use")


def usable_memory_mib(available_mib: int) -> int:
    """What is left for containers after a headroom of 10 %, at least 256 MiB and at most 5 GiB.

    Raises:
        StartUpError: Nothing is left.
    """
    if available_mib <= _MIN_MEMORY_MIB:
        raise StartUpError(f"Not enough memory: {available_mib} MiB are available, more than {_MIN_MEMORY_MIB} needed")
    headroom = min(max(available_mib // 10, _MIN_HEADROOM_MIB), _MAX_HEADROOM_MIB)
    usable = available_mib - headroom
    if usable <= 0:
        raise StartUpError(f"Not enough memory: {available_mib} MiB are available")
    return usable


def _cgroup_room_mib(proc: Path, cgroup: Path) -> int | None:
    """What the own cgroup, or one above it, still allows; ``None`` without a limit."""
    rooms = [
        room
        for folder, limit, usage in _memory_files(proc, cgroup)
        if (room := _room(folder / limit, folder / usage)) is not None
    ]
    return min(rooms) // _MIB if rooms else None


def _memory_files(proc: Path, cgroup: Path) -> list[tuple[Path, str, str]]:
    files: list[tuple[Path, str, str]] = []
    for controllers, path in _own_cgroups(proc):
        if controllers == "":
            root, names = cgroup, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = cgroup / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / path.lstrip("/")
        files += [(step, *names) for step in (folder, *folder.parents) if step == root or root in step.parents]
    return files


def _own_cgroups(proc: Path) -> list[tuple[str, str]]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    parts = [line.split(":", 2) for line in lines]
    return [(part[1], part[2]) for part in parts if len(part) == 3]


def _room(limit: Path, usage: Path) -> int | None:
    try:
        allowed, used = limit.read_text().strip(), usage.read_text().strip()
    except OSError:
        return None
    if allowed == "max" or int(allowed) >= 1 << 60:  # version 1 writes "no limit" as a number close to 2**63
        return None
    return max(0, int(allowed) - int(used))


def _cpu_milli(proc: Path, cgroup: Path) -> int:
    cores = len(os.sched_getaffinity(0)) * 1000
    quotas = [quota for _, path in _own_cgroups(proc) if (quota := _quota_milli(cgroup, path)) is not None]
    return min([cores, *quotas])


def _quota_milli(cgroup: Path, path: str) -> int | None:
    try:
        version2 = (cgroup / path.lstrip("/") / "cpu.max").read_text().split()
        if version2[0] == "max":
            return None
        return int(version2[0]) * 1000 // int(version2[1])
    except (OSError, ValueError, IndexError):
        pass
    folder = cgroup / "cpu" / path.lstrip("/")
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota * 1000 // period if quota > 0 and period > 0 else None
