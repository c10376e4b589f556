"""Every case runs against every driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop
from tests.support.driver_bench import Bench, make_bench, opened

_BOTH = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    """For the streams, whose code talks to the loop itself, asyncio's own loop too."""
    return _BOTH if item.path.stem == "test_drivers_streams" else None


@pytest.fixture(params=["fake", "process", "process without sandbox", "process with images", "docker"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """An opened driver of each kind. Leaving it checks that nothing is left."""
    if request.param == "docker":
        request.getfixturevalue("docker")
    async with opened(make_bench(request.param, tmp_path)) as bench:
        yield bench
