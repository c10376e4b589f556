"""The resource use of a container's processes, as the nine metrics of a call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from hearth.aio.clock import Clock
from hearth.aio.loop_share import loop_share
from hearth.drivers.base import StatsSample
from hearth.drivers.sampling import every_second
from hearth.host.cgroups import Group
from hearth.models.call import STAT_NAMES

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
#: Fields of /proc/<pid>/stat behind the program's name (proc(5), whose numbers are these plus 3): own time and that
#: of children that were waited for, resident pages.
_USER: Final = (11, 13)
_KERNEL: Final = (12, 14)
_RESIDENT: Final = 21
_SHORT_BYTES: Final = 4096


@dataclasses.dataclass(slots=True)
class Usage:
    """Of several processes together: seconds of processor time, bytes."""

    user_s: float = 0.0
    kernel_s: float = 0.0
    memory: int = 0
    disk_read: int = 0
    disk_write: int = 0

    def add(self, pid: int, stat: bytes) -> None:
        """Count one process by its ``stat``; what is missing if it is gone or hidden."""
        fields = stat.rpartition(b")")[2].split()
        self.user_s += sum([int(fields[index]) for index in _USER]) * _TICK_S
        self.kernel_s += sum([int(fields[index]) for index in _KERNEL]) * _TICK_S
        self.memory += int(fields[_RESIDENT]) * _PAGE_BYTES
        for line in _read(f"/proc/{pid}/io").splitlines():
            name, _, value = line.partition(b": ")
            if name == b"read_bytes":
                self.disk_read += int(value)
            elif name == b"write_bytes":
                self.disk_write += int(value)


class Meter:
    """Samples one container. Sums never fall, although a process that ends may take its figures with it.

    An idle container costs no more than a look at which processes it has and at their ``stat``: where nothing in there
    has changed, neither time nor page faults nor threads, nothing else is asked.

    Args:
        pid: The process whose descendants count where there is no ``group``.
        group: Whose processes count.
    """

    def __init__(self, pid: int, group: Group | None, memory_mib: int, clock: Clock) -> None:
        self._pid = pid
        self._group = group
        self._limit = memory_mib << 20
        self._clock = clock
        self._stats: dict[int, bytes] = {}
        self._last = self._measure()
        self._last_s = clock.monotonic()

    def sample(self) -> StatsSample:
        """Return the present use, with the CPU used since the last sample in percent of one CPU."""
        last, now, now_s = self._last, self._measure(), self._clock.monotonic()
        past_s = now_s - self._last_s
        user, kernel = (
            int(100 * max(0.0, used) / past_s) if past_s > 0 else 0
            for used in (now.user_s - last.user_s, now.kernel_s - last.kernel_s)
        )
        now.disk_read = max(now.disk_read, last.disk_read)
        now.disk_write = max(now.disk_write, last.disk_write)
        self._last, self._last_s = now, now_s
        return StatsSample(
            self._clock.now(),
            {
                **dict.fromkeys(STAT_NAMES, 0),  # the kernel does not count the network traffic of a process
                "mem_limit": self._limit,
                "mem_usage": now.memory,
                "disk_read": now.disk_read,
                "disk_write": now.disk_write,
                "cpu_user": user,
                "cpu_kernel": kernel,
                "cpu_total": user + kernel,
            },
        )

    def _measure(self) -> Usage:
        pids = _family(self._pid) if self._group is None else self._group.pids()
        stats = {pid: stat for pid in pids if (stat := _read(f"/proc/{pid}/stat"))}
        if stats and stats == self._stats:
            return self._last
        self._stats = stats
        usage = Usage()
        for pid, stat in self._stats.items():
            usage.add(pid, stat)
        if self._group is not None:
            usage.memory = self._group.memory_bytes()
        return usage


async def samples(
    pid: int, group: Group | None, memory_mib: int, clock: Clock, ended: asyncio.Future[Any]
) -> AsyncIterator[StatsSample]:
    """Yield a sample of one container each second until ``ended`` is done.

    The kernel takes a while to answer where there are many processes, and many containers are measured at the same
    time: each turn of the loop measures a few.
    """
    share = loop_share()
    await share.turn()
    with share:
        meter = Meter(pid, group, memory_mib, clock)
    async for _ in every_second(clock, ended):
        await share.turn()
        with share:
            sample = meter.sample()
        yield sample


def _read(path: str) -> bytes:
    """Return the content of a short kernel file; empty if it is gone or hidden.

    Without what a file object brings: every container is measured every second.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _SHORT_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _family(pid: int) -> list[int]:
    """Yield a process and its descendants."""
    family = [pid]
    for member in family:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{member}/task").glob("*/children"):
                family += [int(child) for child in children.read_text().split()]
    return family
