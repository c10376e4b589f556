"""Learn from the Engine's events how containers end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.aio.background import Background
from hearth.aio.clock import pause
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.telemetry.logs import get_logger

#: Seconds after which a lost stream of events is opened again.
_AGAIN_S: Final = 1.0

_log = get_logger(__name__)


class Exits:
    """Listens for the ends of all containers on one connection.

    The Engine sends the event before it frees the container's network and files, and answers a request that waits for
    the container after that. The difference is a large part of a cold call. Events may be missed, so they only save
    time: each container also asks the Engine.

    Args:
        engine: The Engine of the containers.
        label: The label of the containers to listen for, as ``name=value``.
    """

    def __init__(self, engine: Engine, label: str) -> None:
        self._engine = engine
        self._filters = json.dumps({"type": ["container"], "event": ["die"], "label": [label]})
        self._expected: dict[str, asyncio.Future[int]] = {}
        self._background = Background(lambda exc: _log.error("events of the docker engine ended", exc_info=exc))
        self._background.run(self._listen())

    def __repr__(self) -> str:
        return f"<Exits expected={len(self._expected)}>"

    def expect(self, engine_id: str) -> asyncio.Future[int]:
        """Return a future of the exit code of a container that has not started yet; cancel it to stop listening."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._expected[engine_id] = told
        told.add_done_callback(lambda _: self._expected.pop(engine_id, None))
        return told

    async def close(self) -> None:
        """Stop listening."""
        await self._background.cancel()

    async def _listen(self) -> None:
        while True:
            try:
                await self._take_all()
            except DockerError as exc:
                if 400 <= exc.status < 500:  # a proxy before the Engine allows single requests only
                    _log.info("the docker engine tells no events: cold calls take a little longer", error=exc.message)
                    return
            except (ValueError, *ENGINE_ERRORS):
                pass  # the Engine went away, perhaps in the middle of an event
            await pause(self._engine.clock, _AGAIN_S)

    async def _take_all(self) -> None:
        """Handle events until the connection ends."""
        events = self._engine.docker.events
        subscriber = events.subscribe(create_task=False)  # type: ignore[no-untyped-call]  # the library's
        source = self._background.start(events.run(filters=self._filters))
        try:
            while (event := await subscriber.get()) is not None:
                self._take(event)
            await source
        finally:
            source.cancel()
            await asyncio.wait([source])

    def _take(self, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor") or {}
        told = self._expected.get(str(actor.get("ID")))
        code = (actor.get("Attributes") or {}).get("exitCode")
        if told is not None and code is not None and not told.done():
            told.set_result(int(code))
