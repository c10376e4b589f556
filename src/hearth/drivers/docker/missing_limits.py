"""Limits of containers that an Engine does not set, as sentences for the operator.

An Engine whose kernel lacks a control group leaves its limit out and tells so in its description of itself. Some refuse
the container instead: then :class:`~hearth.drivers.docker.creation.Creation` leaves an optional limit out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.retries import ENGINE_ERRORS

MEMORY: Final = "the Docker Engine does not limit the memory of functions: one of them may take all of the machine's"
SWAP: Final = "the Docker Engine does not limit the swap of functions"
CPU: Final = "the Docker Engine does not limit the CPU of functions: cpus has no effect"
PROCESSES: Final = "the Docker Engine does not limit the processes of functions: FN_MAX_PIDS has no effect"
OPEN_FILES: Final = "the Docker Engine does not limit the open files of functions: FN_MAX_OPEN_FILES has no effect"
SHARED_MEMORY: Final = "the Docker Engine sets the size of /dev/shm itself"
OUTPUT: Final = "the Docker Engine keeps a copy of the output of functions on its disk"
_LIMIT_S: Final = 10.0
#: Names in the Engine's description of itself. One that is not there says nothing.
_TOLD: Final = {"MemoryLimit": MEMORY, "SwapLimit": SWAP, "CpuCfsQuota": CPU, "PidsLimit": PROCESSES}


async def look(engine: Engine, *, max_pids: int) -> tuple[str, ...]:
    """Return a sentence for each limit that this Engine leaves out; none if it does not describe itself.

    Args:
        engine: That runs functions.
        max_pids: The limit of processes; 0: nobody asks for one.
    """
    try:
        async with asyncio.timeout(_LIMIT_S):
            info = await engine.docker.system.info()
    except ENGINE_ERRORS:
        return ()
    return told_by(info, max_pids=max_pids)


def told_by(info: Mapping[str, Any], *, max_pids: int) -> tuple[str, ...]:
    """Return what the Engine's description of itself says of missing limits."""
    absent = [sentence for name, sentence in _TOLD.items() if info.get(name) is False]
    return tuple(sentence for sentence in absent if max_pids or sentence is not PROCESSES)
