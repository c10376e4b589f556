"""Decides who looks into a queue: everyone after each change, and nobody twice without one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection


class Readiness:
    """Remembers which looks have found no more since the queue has changed.

    Several readers may look at the same time, each for the messages of all apps except some. One that finds no more
    says nothing about the apps that it has left out.
    """

    def __init__(self) -> None:
        self._changes = 0
        self._changed = asyncio.Event()
        self._searched: set[frozenset[str]] = set()

    def __repr__(self) -> str:
        return f"<Readiness changes={self._changes}>"

    @property
    def changes(self) -> int:
        """The number of changes so far; taken before a look."""
        return self._changes

    def change(self) -> None:
        """Note that a message may have become ready."""
        self._changes += 1
        self._searched.clear()
        self._changed.set()

    def found_no_more(self, changes: int, without: Collection[str]) -> None:
        """Note that a look has left no message of any app except some.

        Args:
            changes: Those before the look.
            without: The apps that were left out.
        """
        if changes == self._changes:
            self._searched.add(frozenset(without))

    async def wait(self, without: Collection[str]) -> None:
        """Wait until there may be a message of any app except some."""
        while any(searched.issubset(without) for searched in self._searched):
            self._changed.clear()
            await self._changed.wait()
