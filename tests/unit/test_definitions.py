"""Definitions that are kept: how often they are loaded, for whom, and how many of them there are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.clock import FakeClock

from hearth.access.cache import CachedDefinitions, Definition
from hearth.models.app import App
from hearth.models.errors import StoreUnavailable
from hearth.models.route import Route


class Source:
    """Definitions that are loaded once a test opens the gate; ``loads`` counts them."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.loads: list[str] = []
        self.error: Exception | None = None

    async def get_app(self, name: str) -> App:
        self.loads.append(name)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return App(name=name)

    async def get_route(self, app_name: str, path: str) -> Route:
        return Route(app_name=app_name, path=path, image="i")


async def settle() -> None:
    """Let everything run that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


def definitions(source: Source, clock: FakeClock | None = None, **options: Any) -> CachedDefinitions:
    return CachedDefinitions(source, clock or FakeClock(), **options)


async def test_many_who_ask_at_once_share_one_load() -> None:
    source = Source()
    kept = definitions(source)
    asking = [asyncio.create_task(kept.get("a", "/p")) for _ in range(20)]
    await settle()
    source.gate.set()
    found = await asyncio.gather(*asking)
    assert source.loads == ["a"]
    assert all(one is found[0] for one in found)
    await kept.close()


async def test_many_who_ask_at_once_share_one_failure_and_the_next_one_loads_again() -> None:
    source = Source()
    kept = definitions(source)
    source.error = StoreUnavailable("away")
    asking = [asyncio.create_task(kept.get("a", "/p")) for _ in range(5)]
    await settle()
    source.gate.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert (source.loads, {type(failure) for failure in failures}) == (["a"], {StoreUnavailable})
    source.error = None
    assert (await kept.get("a", "/p")).app.name == "a"
    await kept.close()


@pytest.mark.parametrize("leaving", [0, 1])
async def test_one_who_gives_up_does_not_take_the_load_from_the_others(leaving: int) -> None:
    source = Source()
    kept = definitions(source)
    asking = [asyncio.create_task(kept.get("a", "/p")) for _ in range(3)]
    await settle()
    asking.pop(leaving).cancel()
    await settle()
    source.gate.set()
    assert [one.app.name for one in await asyncio.gather(*asking)] == ["a", "a"]
    assert source.loads == ["a"]
    await kept.close()


async def test_a_load_that_everybody_gave_up_is_kept_all_the_same() -> None:
    source = Source()
    kept = definitions(source)
    asking = asyncio.create_task(kept.get("a", "/p"))
    await settle()
    asking.cancel()
    source.gate.set()
    await settle()
    assert kept.get_nowait("a", "/p") is not None
    await kept.close()


async def test_the_oldest_definition_goes_when_there_are_too_many() -> None:
    source = Source()
    source.gate.set()
    clock = FakeClock()
    kept = definitions(source, clock, max_entries=3, stale_s=100)
    for path in ("/1", "/2", "/3"):
        await kept.get("a", path)
    clock.advance(6)
    for path in ("/1", "/4", "/5"):  # the first one is loaded again, and is the newest then
        await kept.get("a", path)
    clock.advance(6)
    source.error = StoreUnavailable("away")
    found = [await asyncio.gather(kept.get("a", f"/{n}"), return_exceptions=True) for n in range(1, 6)]
    assert [isinstance(outcome, Definition) for [outcome] in found] == [True, False, False, True, True]
    await kept.close()


async def test_a_node_keeps_ten_thousand_definitions_at_most() -> None:
    source = Source()
    source.gate.set()
    kept = definitions(source)
    for number in range(10_001):
        await kept.get("a", f"/{number}")
    assert [number for number in (0, 1, 10_000) if kept.get_nowait("a", f"/{number}")] == [1, 10_000]
    await kept.close()


async def test_what_is_loading_while_it_changes_is_not_kept() -> None:
    source = Source()
    kept = definitions(source)
    asking = asyncio.create_task(kept.get("a", "/p"))
    await settle()
    kept.forget("a", "/p")
    source.gate.set()
    await asking
    assert kept.get_nowait("a", "/p") is None
    await kept.close()


async def test_who_holds_a_definition_sees_that_it_is_not_fresh_any_more() -> None:
    source, clock = Source(), FakeClock()
    kept = definitions(source, clock, max_entries=1)
    loading = asyncio.create_task(kept.get("a", "/loading"))
    await settle()
    kept.forget("a", "/loading")
    source.gate.set()
    held = [await loading]
    held.append(await kept.get("a", "/pushed-out"))
    held.append(await kept.get("a", "/forgotten"))
    kept.forget("a")
    held.append(await kept.get("a", "/fresh"))
    assert [one.until > clock.monotonic() for one in held] == [False, False, False, True]
    clock.advance(6)
    assert held[-1].until <= clock.monotonic()
    await kept.close()
