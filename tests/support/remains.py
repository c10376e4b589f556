"""What a node may have left on its machine."""

from __future__ import annotations

import contextlib
from pathlib import Path


def processes_of(uids: range) -> list[int]:
    """Return the processes of these users of the machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
            if any(int(word) in uids for word in fields["Uid"].split()):
                found.append(int(path.parent.name))
    return found


def mounts(folder: Path, pid: int | str = "self") -> set[str]:
    """Return what is mounted where for a process of a test.

    Args:
        folder: The temporary folder of the test. What is mounted in those of others, which run at the same time, is
            left out; so is what Docker and ``ip netns`` mount.
        pid: The process.
    """
    found = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        mounted, _, source = line.partition(" - ")
        _, _, _, root, target, *_ = mounted.split(" ")
        is_others = "/pytest-of-" in target and not Path(target).is_relative_to(folder)
        if not is_others and "docker" not in f"{root}{target}" and not target.startswith("/run/netns"):
            found.add(f"{source.split(' ')[0]} {root} {target}")
    return found


def control_groups(node: str) -> set[Path]:
    """Return the control groups of a node's containers."""
    top = Path("/sys/fs/cgroup")
    return {path for tree in ("", "*/") for path in top.glob(f"{tree}hearth/{node}/*") if path.is_dir()}


def files(folder: Path) -> set[str]:
    """Return all files and folders below one, but those in its folder ``report``."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.parent != folder / "report"}
