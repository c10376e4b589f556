"""Detect how much memory and CPU containers may use on this machine (agent specification 6.2-6.4)."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from hearth.host import cgroup_limits
from hearth.models.errors import StartUpError
from hearth.models.function import Amount

_MIB: Final = 1024 * 1024
_MIN_HEADROOM_MIB: Final = 256
_MAX_HEADROOM_MIB: Final = 5 * 1024
_MIN_MEMORY_MIB: Final = 256
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return the name that images have for the processor of this machine."""
    found = platform.machine()
    return _ARCHITECTURES.get(found, found)


def detect(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Amount:
    """Return the memory and CPU that containers may use together. Blocks shortly: for start-up only.

    Raises:
        StartUpError: There is not enough memory, or the kernel does not report it.
    """
    own = cgroup_limits.own(proc, cgroups)
    available = available_memory_mib(_text(proc / "meminfo"))
    if (room := cgroup_limits.memory_room(own)) is not None:
        available = min(available, room // _MIB)
    return Amount(usable_memory_mib(available), _cpu_milli(proc, own))


def available_memory_mib(meminfo: str) -> int:
    """Return ``MemAvailable`` of /proc/meminfo, in MiB.

    Raises:
        StartUpError: The kernel does not report it.
    """
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) // 1024
    raise StartUpError("/proc/meminfo has no MemAvailable: set FN_MAX_TOTAL_MEMORY to the bytes containers may use")


def usable_memory_mib(available_mib: int) -> int:
    """Return what is left for containers after a headroom of 10 %, at least 256 MiB and at most 5 GiB.

    Raises:
        StartUpError: Nothing is left.
    """
    if available_mib <= _MIN_MEMORY_MIB:
        raise StartUpError(
            f"Not enough memory: {available_mib} MiB are available, more than {_MIN_MEMORY_MIB} are needed"
        )
    return available_mib - min(max(available_mib // 10, _MIN_HEADROOM_MIB), _MAX_HEADROOM_MIB)


def _cpu_milli(proc: Path, own: list[cgroup_limits.Folders]) -> int:
    limits = [_processors(proc) * 1000, cgroup_limits.cpu_quota_milli(own), cgroup_limits.cpuset_milli(own)]
    return max(1, min(limit for limit in limits if limit is not None))


def _processors(proc: Path) -> int:
    lines = _text(proc / "cpuinfo").splitlines()
    count = sum(line.partition(":")[0].strip() == "processor" for line in lines)
    return count or len(os.sched_getaffinity(0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
