"""A node in this process, put together by code: scripted containers, and extensions made of a function."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx

from hearth import settings
from hearth.aio.clock import SystemClock
from hearth.nodes import Node, Options, open_node
from hearth.server.extensions import Extension, Server
from hearth.testing.script import Script
from hearth.testing.scripted_driver import FakeDriver
from tests.support.agent import OBEDIENT


@dataclasses.dataclass
class Added:
    """An extension that is a function."""

    setup_with: Callable[[Server], Any]
    name: str = "test/added"

    def setup(self, server: Server) -> Any:
        return self.setup_with(server)


@dataclasses.dataclass
class Extended:
    """A node, and a client of it."""

    node: Node
    http: httpx.AsyncClient
    driver: FakeDriver

    async def route(self, app: str = "a", path: str = "f", **fields: Any) -> str:
        """Make a route of the obedient function; the path that calls it."""
        route = {"image": "obey", "format": "json", **fields}
        answer = await self.http.put(f"/v1/apps/{app}/routes/{path}", json={"route": route})
        assert answer.status_code == 200, answer.text
        return f"/r/{app}/{path}"

    async def record(self, answer: httpx.Response, app: str = "a") -> dict[str, Any]:
        """The record of a call, once it has ended."""
        call_id = answer.headers["fn_call_id"]
        while True:
            found = await self.http.get(f"/v1/apps/{app}/calls/{call_id}")
            call: dict[str, Any] = found.json()["call"]
            if call["status"] not in ("queued", "running"):
                return call


@contextlib.asynccontextmanager
async def extended_node(data: Path, added: Iterable[Extension | str] = (), **given: Any) -> AsyncIterator[Extended]:
    """Open a full node with extensions; leaving it closes it."""
    driver = FakeDriver(SystemClock(), {"obey": Script(main=OBEDIENT)})
    wanted = {"data_dir": data, "mq_url": "memory://", "max_total_memory": 4 << 30, "max_total_cpu": 8000, **given}
    options = Options(driver=driver, extensions=tuple(added))
    async with open_node(settings.load(**wanted), 8080, options) as node:
        transport = httpx.ASGITransport(node.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Extended(node, client, driver)
    await driver.close()
    assert driver.counts.alive == 0
