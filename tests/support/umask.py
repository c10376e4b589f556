"""The umask of this process, for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_umask() -> Iterator[None]:
    """Undo what happens to it meanwhile."""
    before = os.umask(0o077)
    os.umask(before)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set it, and set it back."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
