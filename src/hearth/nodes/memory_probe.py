"""Test with a small process whether the kernel enforces memory limits."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

from hearth.host.cgroups import Groups

_LIMIT_MIB: Final = 32
_GREEDY: Final = "import sys; sys.stdin.read(1); held = bytearray(256 << 20)"
_LIMIT_S: Final = 10.0


def limit_holds(groups: Groups) -> bool:
    """Return whether the kernel kills a process that exceeds the memory limit of its group."""
    group = groups.make("probe", _LIMIT_MIB, pids=16)
    greedy = subprocess.Popen([sys.executable, "-S", "-c", _GREEDY], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for entry in group.entries:
            entry.write_text(str(greedy.pid))
        greedy.communicate(b"x", timeout=_LIMIT_S)
        return greedy.returncode == -signal.SIGKILL
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        greedy.kill()
        greedy.wait()
        group.remove()
