"""Secrets that are kept for some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.support.clock import FakeClock

from hearth.access.secret_cache import CachedSecrets
from hearth.models.secret import SecretValues


class Source:
    """Answers with its value once it is let."""

    def __init__(self) -> None:
        self.value = "old"
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        found = SecretValues({"S": self.value}, {"S": self.value})
        self.asked.set()
        await self.may_answer.wait()
        return found


async def test_what_was_read_before_a_change_is_not_kept() -> None:
    source = Source()
    cache = CachedSecrets(source, FakeClock())
    reading = asyncio.create_task(cache.values("a", "id", ["S"]))
    await source.asked.wait()
    source.value = "new"
    cache.forget("a")
    source.may_answer.set()
    await reading
    assert (await cache.values("a", "id", ["S"])).values == {"S": "new"}


async def test_what_is_fresh_is_not_asked_for_again() -> None:
    source = Source()
    source.may_answer.set()
    clock = FakeClock()
    cache = CachedSecrets(source, clock)
    await cache.values("a", "id", ["S"])
    source.value = "new"
    clock.advance(4.9)
    assert (await cache.values("a", "id", ["S"])).values == {"S": "old"}
    clock.advance(0.2)
    assert (await cache.values("a", "id", ["S"])).values == {"S": "new"}
