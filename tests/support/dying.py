"""Nodes that die at a step: whatever they have not asked of their stores by then, they never do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class Killed(Exception):
    """The node dies here."""


class Dying:
    """Passes calls on; a node dies before or after those of some names.

    Args:
        inner: What is asked.
        dies: Returns whether it dies now, by the name of the step.
    """

    def __init__(self, inner: Any, dies: Callable[[str], bool]) -> None:
        self._inner = inner
        self.dies = dies

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def step(*args: Any) -> Any:
            if self.dies(f"before {name}"):
                raise Killed(name)
            found = await getattr(self._inner, name)(*args)
            if self.dies(f"after {name}"):
                raise Killed(name)
            return found

        return step
