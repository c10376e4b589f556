"""Fns that are kept: a change while one is being loaded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.clock import FakeClock

from hearth.access.fn_cache import CachedFns
from hearth.models.app import App
from hearth.models.fn import Fn


class Source:
    """A fn that is loaded once a test opens the gate; ``loads`` counts."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.loads = 0

    async def get_fn(self, fn_id: str) -> Fn:
        self.loads += 1
        await self.gate.wait()
        return Fn(id=fn_id, name="f", app_id="A")

    async def get_app_by_id(self, app_id: str) -> App:
        return App(name="a", id=app_id)


@pytest.mark.parametrize("changed", ["a", "another"])
async def test_what_was_loaded_during_a_change_is_answered_and_not_kept(changed: str) -> None:
    """Which app a fn belongs to is not known before it was loaded, so a change of any app counts."""
    source: Any = Source()
    cache = CachedFns(source, FakeClock())
    try:
        asking = asyncio.create_task(cache.by_id("F"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cache.forget(changed)
        source.gate.set()
        first = await asking
        assert first.fn.name == "f"
        assert await cache.by_id("F") is not first
        assert source.loads == 2
    finally:
        await cache.close()
