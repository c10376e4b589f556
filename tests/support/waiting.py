"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], limit_s: float = 60) -> bool:
    """Look until a condition holds, often at first; whether it came to hold."""
    end = time.monotonic() + limit_s
    pause_s = 0.002
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
        pause_s = min(0.05, pause_s * 1.5)
    return True
