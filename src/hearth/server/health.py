"""The health of a node: it lives, and it should be sent work.

``/healthz`` says only that the process answers: cheap, and true during a drain, so that nobody kills a node that is
finishing its calls. ``/readyz`` says whether new work belongs here: it asks what the node depends on.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hearth.aio.clock import Clock
from hearth.models.errors import HearthError, StoreUnavailable
from hearth.telemetry.logs import get_logger

#: How long an answer is good for: many who ask cost the stores no more than one.
_FRESH_S: Final = 1.0
#: What does not answer within this time is not ready, seconds.
_LIMIT_S: Final = 2.0
OK: Final = "ok"
DRAINING: Final = "draining"

#: A block of a disk: what is less might still fit into one that is full.
_PROBE_BYTES: Final = 4096

Check = Callable[[], Awaitable[object]]

_log = get_logger(__name__)


def folder_check(folder: Path) -> Check:
    """Return a check that writes a file to a folder, and removes it."""

    async def check() -> None:
        await asyncio.to_thread(_write_to, folder)

    return check


def _write_to(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".hearth-check-") as file:
            file.write(b"x" * _PROBE_BYTES)
            file.flush()
    except OSError as exc:
        raise StoreUnavailable(f"cannot write to {folder}: {exc.strerror}") from exc


class Readiness:
    """Asks what a node depends on, at most once a second.

    Args:
        checks: By name; one that raises, or takes too long, makes the node not ready.
        warnings: What the operator should know of a node that is ready.
    """

    def __init__(
        self, clock: Clock, checks: Mapping[str, Check], warnings: Callable[[], Sequence[str]] = lambda: ()
    ) -> None:
        self._clock = clock
        self._checks = checks
        self._warnings = [warnings]
        self._draining = False
        self._found: dict[str, str] = {}
        self._fresh_until = 0.0
        self._lock = asyncio.Lock()

    def add_warnings(self, warnings: Callable[[], Sequence[str]]) -> None:
        """Show further warnings, too."""
        self._warnings.append(warnings)

    def drain(self) -> None:
        """From now on the node is not ready."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """The node is about to stop."""
        return self._draining

    async def look(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the node is ready, and a word or a reason for each check."""
        if self._draining:
            return False, {"ready": False, "node": DRAINING}
        async with self._lock:  # who comes while others ask gets their answer
            if self._clock.monotonic() >= self._fresh_until:
                words = await asyncio.gather(*[self._ask(name, check) for name, check in self._checks.items()])
                self._found = dict(zip(self._checks, words, strict=True))
                self._fresh_until = self._clock.monotonic() + _FRESH_S
        ready = not self._draining and all(word == OK for word in self._found.values())
        told = {"ready": ready, "node": DRAINING if self._draining else OK, **self._found}
        if warnings := [text for source in self._warnings for text in source()]:
            told["warnings"] = warnings
        return ready, told

    async def _ask(self, name: str, check: Check) -> str:
        try:
            async with asyncio.timeout(_LIMIT_S):
                await check()
        except TimeoutError:
            reason = f"no answer within {_LIMIT_S:g} s"
        except HearthError as exc:
            reason = str(exc)
        else:
            return OK
        _log.warning("not ready", check=name, reason=reason)
        return reason
