"""A pytest plugin: the files of tests are in memory where there is room, for nobody reads them after a power failure.

Databases sync each change of their schema: on a disk, that is most of the time that such a test takes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

MEMORY: Final = Path("/dev/shm")
#: Bytes that must be free. A run keeps less than half of it: its databases, and what failed tests leave.
NEEDED: Final = 2 << 30


def root() -> str | None:
    """Return the folder for temporary folders; ``None`` names the usual one."""
    try:
        return str(MEMORY) if shutil.disk_usage(MEMORY).free >= NEEDED and os.access(MEMORY, os.W_OK) else None
    except OSError:
        return None


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Name the folder before pytest makes its own there; workers get theirs from it."""
    if (place := root()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", place)
