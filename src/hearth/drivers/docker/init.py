"""The init process of containers: it reaps what a function leaves behind, and executes the image's program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

#: Enough of a container's first error output to hold the init's message about a program.
MESSAGE_BYTES: Final = 1024
#: tini, which Docker calls docker-init, and Podman's catatonit.
_CANNOT_EXECUTE: Final = re.compile(
    rb"\A(?:\[FATAL tini \(\d+\)\] exec .+? failed|ERROR \(catatonit:\d+\): failed to exec pid1): ([^\n]+)", re.DOTALL
)
_WITHOUT_INIT: Final = frozenset({"Engine", "containerd", "runc"})
MISSING: Final = (
    "the Docker Engine has no init process (docker-init; Debian: package tini): "
    "processes that a function leaves behind stay as zombies, and count against FN_MAX_PIDS"
)


def is_missing(version: Mapping[str, Any]) -> bool:
    """Return whether the Engine would not find an init process. One that lists no components is trusted to have it."""
    components = {str(component.get("Name")) for component in version.get("Components") or ()}
    return "Engine" in components and components <= _WITHOUT_INIT


def start_fault(said: bytes) -> str:
    """Return why init could not execute the image's program, by its error output; empty if it could."""
    found = _CANNOT_EXECUTE.match(said)
    return found[1].decode("utf-8", "replace").strip().lower() if found else ""
