"""Read the limits of the control groups above this process: version 1, version 2, or both.

A limit holds for everything below it, so each is looked for in the own group and in all above it. Inside a container
the root that is seen is the container's own group, while ``/proc/self/cgroup`` may name it as the host does: what does
not exist is passed over, the root that is seen is always looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Version 1 writes "no limit" as a number close to 2**63.
_NO_LIMIT: Final = 1 << 60


@dataclasses.dataclass(frozen=True, slots=True)
class Folders:
    """One hierarchy that the process is in.

    Attributes:
        controllers: Those of version 1 that it has; none: it is the hierarchy of version 2.
        steps: The own group first, then each above it, the root last.
    """

    controllers: frozenset[str]
    steps: tuple[Path, ...]

    def with_controller(self, name: str) -> bool:
        """Return whether limits of this kind may be in this file."""
        return not self.controllers or name in self.controllers


def own(proc: Path, mounted: Path) -> list[Folders]:
    """Return the control groups of this process.

    Args:
        proc: Where the proc file system is.
        mounted: Where the control groups are.
    """
    found = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        controllers = frozenset(name for name in names.split(",") if name)
        for root in _roots(mounted, controllers):
            folder = root / path.lstrip("/")
            above = [step for step in folder.parents if step == root or root in step.parents]
            found.append(Folders(controllers, tuple(dict.fromkeys([folder, *above, root]))))
    return found


def memory_room(groups: list[Folders]) -> int | None:
    """Bytes that may still be used; ``None`` without a limit."""
    rooms = [
        max(0, limit - (_number(step / used_name) or 0))
        for step, limit_name, used_name in _memory_files(groups)
        if (limit := _number(step / limit_name)) is not None
    ]
    return min(rooms, default=None)


def cpu_quota_milli(groups: list[Folders]) -> int | None:
    """Thousandths of a core that may be used; ``None`` without a quota."""
    steps = [step for group in groups if group.with_controller("cpu") for step in group.steps]
    quotas = [quota for step in steps for quota in (_quota_v2(step), _quota_v1(step)) if quota is not None]
    return min(quotas, default=None)


def cpuset_milli(groups: list[Folders]) -> int | None:
    """Thousandths of a core that the CPUs of the set have; ``None`` without a set."""
    steps = [step for group in groups if group.with_controller("cpuset") for step in group.steps]
    sets = [count_cpus(_text(step / name)) for step in steps for name in ("cpuset.cpus.effective", "cpuset.cpus")]
    return min((count * 1000 for count in sets if count), default=None)


def count_cpus(ranges: str) -> int:
    """Return the number of CPUs in a list such as ``0-3,8``."""
    count = 0
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            count += int(last or first) - int(first) + 1
    return count


def _roots(mounted: Path, controllers: frozenset[str]) -> list[Path]:
    if not controllers:
        return [mounted, mounted / "unified"]  # alone, or beside version 1
    if any(name.startswith("name=") for name in controllers):
        return []  # a hierarchy without controllers
    return [mounted / ",".join(sorted(controllers)), *(mounted / name for name in sorted(controllers))]


def _memory_files(groups: list[Folders]) -> Iterator[tuple[Path, str, str]]:
    for group in groups:
        if not group.with_controller("memory"):
            continue
        limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        if not group.controllers:
            limit, used = "memory.max", "memory.current"
        yield from ((step, limit, used) for step in group.steps)


def _quota_v2(step: Path) -> int | None:
    quota, period = [*_text(step / "cpu.max").split(), "", ""][:2]
    return _milli(quota, period)


def _quota_v1(step: Path) -> int | None:
    return _milli(_text(step / "cpu.cfs_quota_us").strip(), _text(step / "cpu.cfs_period_us").strip())


def _milli(quota: str, period: str) -> int | None:
    """Return the quota in thousandths of a core; ``max`` and ``-1`` mean no quota."""
    if not quota.isdecimal() or not period.isdecimal() or not int(period):
        return None
    return int(quota) * 1000 // int(period)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
