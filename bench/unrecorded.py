"""A node that keeps no records and no logs: what recording costs shows beside it. Started as ``hearth start`` is."""

from __future__ import annotations

import asyncio

from hearth.access.base import EndedCall
from hearth.agent.recorder import Recorder
from hearth.cli.main import app


def forget(_recorder: Recorder, _ended: EndedCall, *, is_awaited: bool = True) -> asyncio.Future[bool]:
    """Say that it is stored."""
    stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    stored.set_result(True)
    return stored


if __name__ == "__main__":
    Recorder.record = forget  # type: ignore[method-assign,assignment]  # a measurement, not a setting: no node runs like this
    app(["start"])
