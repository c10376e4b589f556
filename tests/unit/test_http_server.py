"""The end of the HTTP server."""

from __future__ import annotations

from hearth.aio.clock import SystemClock
from hearth.server.http.server import HttpServer


async def test_a_signal_after_the_drain_changes_nothing() -> None:
    async with HttpServer(SystemClock(), head_timeout_s=30) as server:
        await server.drain(30)
        server.hurry()
        await server.drain(30)
