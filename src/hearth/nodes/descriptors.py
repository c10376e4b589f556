"""The limit of open files and connections of this process."""

from __future__ import annotations

import resource
from typing import Final

#: As many as are asked for where there is no limit; the kernel's own default is the same.
_MOST: Final = 1 << 20


def raise_limit() -> None:
    """Raise the soft limit to the hard one: many systems start programs with a soft limit for ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
