"""A node that keeps no records and no logs: what recording costs shows beside it. Started as ``hearth start`` is."""

from __future__ import annotations

from hearth.access.base import EndedCall
from hearth.agent.recorder import Recorder
from hearth.cli.main import app


async def forget(_recorder: Recorder, _ended: EndedCall) -> bool:
    """Say that it is stored."""
    return True


if __name__ == "__main__":
    Recorder.record = forget  # type: ignore[method-assign]  # a measurement, not a setting: no node runs like this
    app(["start"])
