"""Processes of this machine."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


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


#: The kernel looks at the thread that has started a process, not at the process: this one stays to the end.
_starter = concurrent.futures.ThreadPoolExecutor(1, "starter")
SETPRIV = shutil.which("setpriv")


def spawn(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """Start a process that dies with this one: tests that are killed leave no servers behind."""
    mortal = [SETPRIV, "--pdeathsig", "KILL", "--"] if SETPRIV else []
    start: Callable[..., subprocess.Popen[Any]] = subprocess.Popen
    return _starter.submit(start, [*mortal, *command], **options).result()
