"""A scrape of many series holds no other request up."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from hearth.aio.clock import SystemClock
from hearth.server.api import Api
from hearth.telemetry import metrics, names
from hearth.telemetry.metrics import Metrics


async def test_others_are_answered_while_metrics_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PIECE", 1)  # each series is a piece
    node = Metrics()
    node.counter("fn_calls").add(1, "a", "/p")
    api = Api(None, SystemClock(), dict, metrics=node)
    ended: list[str] = []
    pieces = 0

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def ask(path: str) -> None:
        async def send(message: Message) -> None:
            nonlocal pieces
            if path == "/metrics" and message.get("body"):
                pieces += 1
                if pieces == 1:
                    group.create_task(ask("/healthz"))
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                ended.append(path)

        await api({"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}, receive, send)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(ask("/metrics"))
    assert pieces > len(names.METRICS)
    assert ended == ["/healthz", "/metrics"]
