"""How much memory and CPU this node may give to containers (agent specification 6.2-6.4)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hearth.agent import cgroup
from hearth.agent.resources import Amount, pools
from hearth.models.errors import StartUpError
from hearth.telemetry.logs import get_logger

_MIB: Final = 1024 * 1024
_MIN_HEADROOM_MIB: Final = 256
_MAX_HEADROOM_MIB: Final = 5 * 1024
_MIN_MEMORY_MIB: Final = 256
#: A pool below this is worth a warning.
_SMALL: Final = Amount(256, 1000)

_log = get_logger(__name__)


def detect(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Amount:
    """What containers may use together on this machine. Blocks shortly: for start-up only.

    Raises:
        StartUpError: There is not enough memory, or the kernel does not tell.
    """
    own = cgroup.own(proc, cgroups)
    available = available_memory_mib(_text(proc / "meminfo"))
    if (room := cgroup.memory_room(own)) is not None:
        available = min(available, room // _MIB)
    return Amount(usable_memory_mib(available), _cpu_milli(proc, own))


def check_pools(total: Amount) -> None:
    """See that calls of both kinds can run with this total, and tell the operator what there is.

    Raises:
        StartUpError: A pool would be empty.
    """
    _log.info("resources for containers", memory_mib=total.memory_mib, cpu_milli=total.cpu_milli)
    for name, pool in zip(("sync", "async"), pools(total), strict=True):
        if pool.memory_mib <= 0 or pool.cpu_milli <= 0:
            raise StartUpError(
                f"Not enough memory or CPU for {name} calls: {total.memory_mib} MiB and {total.cpu_milli} milli-CPUs "
                "in all; see FN_MAX_TOTAL_MEMORY and FN_MAX_TOTAL_CPU"
            )
        if not _SMALL.fits(pool):
            _log.warning("severely limited resources", pool=name, memory_mib=pool.memory_mib, cpu_milli=pool.cpu_milli)


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
        raise StartUpError(
            f"Not enough memory: {available_mib} MiB are available, more than {_MIN_MEMORY_MIB} are needed"
        )
    return available_mib - min(max(available_mib // 10, _MIN_HEADROOM_MIB), _MAX_HEADROOM_MIB)


def _cpu_milli(proc: Path, own: list[cgroup.Folders]) -> int:
    limits = [_processors(proc) * 1000, cgroup.cpu_quota_milli(own), cgroup.cpuset_milli(own)]
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
