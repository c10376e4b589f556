"""Processes of this machine."""

from __future__ import annotations

import collections
import contextlib
from pathlib import Path


def leaves_below(pid: int) -> list[int]:
    """The processes without children below this one: of a node, its functions."""
    children = collections.defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children[int(parent)].append(int(entry.name))
    below, leaves = [*children[pid]], []
    while below:
        one = below.pop()
        below += children[one]
        if not children[one]:
            leaves.append(one)
    return sorted(leaves)
