"""Find the processes of functions by limits that they inherit, for machines without control groups.

A sandbox ends with all that is inside, and a control group knows its processes. Without either, a function can leave
a process behind that outlives its container and the server. It may have a session, descriptors and an environment of
its own, but it has the limits of its parent, and only privileged processes raise hard limits. So two limits that Linux
ignores tell whose it is: the size of the resident set names the node, the number of file locks its container.

A function that wants to hide can lower them: only a sandbox stops that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import select
import signal
from typing import Final

#: Lines of /proc/<pid>/limits. The limits have no effect since Linux 2.4.30 and 2.4.25.
_NODE: Final = "Max resident set"
_CONTAINER: Final = "Max file locks"
_UNLIMITED: Final = "unlimited"
_KIB: Final = 1024
#: Marks of nodes are sizes that no program sets: above 4 EiB, in KiB.
_LEAST: Final = 1 << 52
#: Bytes of a node's part; the sum stays a positive number of 64 bits.
_NODE_BYTES: Final = 6
#: A process that forks while it is looked for is found in the next round.
_ROUNDS: Final = 100
#: A killed process is gone within milliseconds, unless the kernel holds it.
_END_MS: Final = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """The limits of a container's processes, hard and soft.

    Attributes:
        resident_kib: Size of the resident set; the same for all containers of a node.
        file_locks: Number of file locks; 0 means those of every container.
    """

    resident_kib: int
    file_locks: int = 0

    def fits(self, limits: dict[str, str]) -> bool:
        """Return whether a process with these hard limits has the mark."""
        if limits.get(_NODE) != str(self.resident_kib * _KIB):
            return False
        return not self.file_locks or limits.get(_CONTAINER) == str(self.file_locks)


class Marks:
    """The marks of one node.

    Args:
        node: Names it among those of the machine.
    """

    def __init__(self, node: str) -> None:
        number = int.from_bytes(hashlib.blake2b(node.encode(), digest_size=_NODE_BYTES).digest())
        self.all = Mark(_LEAST + number)
        self._numbers = itertools.count(1)

    def make(self) -> Mark:
        """Return the mark of one more container."""
        return Mark(self.all.resident_kib, next(self._numbers))


def can_mark() -> bool:
    """Return whether this process may set such limits: it has no lower ones itself."""
    limits = _hard_limits(os.getpid())
    return all(limits.get(name) == _UNLIMITED for name in (_NODE, _CONTAINER))


def end_all(mark: Mark) -> int:
    """Kill the processes that have the mark; return how many there were. Blocks: for a thread."""
    ended = 0
    for _ in range(_ROUNDS):
        found = [name for name in os.listdir("/proc") if name.isdigit() and _end(int(name), mark)]
        if not found:
            break
        ended += len(found)
    return ended


def _end(pid: int, mark: Mark) -> bool:
    """Kill a process if it has the mark. It is held by a descriptor: its number may become another's meanwhile."""
    if not mark.fits(_hard_limits(pid)):
        return False
    with contextlib.suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            has_ended = select.poll()
            has_ended.register(held, select.POLLIN)
            if not has_ended.poll(0) and mark.fits(_hard_limits(pid)):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                has_ended.poll(_END_MS)
                return True
        finally:
            os.close(held)
    return False


def _hard_limits(pid: int) -> dict[str, str]:
    """Return the hard limits of a process by their names; nothing if it has ended."""
    found = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/limits") as file:
        for line in file:  # the name in 26 columns, then soft limit, hard limit, unit
            name, values = line[:26].strip(), line[26:].split()
            found[name] = values[1] if len(values) > 1 else ""
    return found
