"""How containers end, told by the Engine's events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.clock import pause
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.telemetry.logs import get_logger

#: An Engine that stopped telling is listened to again after this long.
_AGAIN_S: Final = 1.0

_log = get_logger(__name__)


class Exits:
    """Listens for the ends of containers, all on one connection.

    The Engine tells of an end before it gives the container's network and files back, and answers who waits for the
    container after that: a good part of the time of a cold call. But an event may be missed. So this is a help, never
    a condition: who has to know asks the Engine, too.

    Args:
        engine: That runs them.
        label: Of the containers to listen for, as ``name=value``.
    """

    def __init__(self, engine: Engine, label: str) -> None:
        self._engine = engine
        self._filters = json.dumps({"type": ["container"], "event": ["die"], "label": [label]})
        self._expected: dict[str, asyncio.Future[int]] = {}
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    def __repr__(self) -> str:
        return f"<Exits expected={len(self._expected)}>"

    def expect(self, engine_id: str) -> asyncio.Future[int]:
        """The exit code of a container that has not started yet, once it is told; cancel it when it is known."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._expected[engine_id] = told
        told.add_done_callback(lambda _: self._expected.pop(engine_id, None))
        return told

    async def close(self) -> None:
        """Stop listening."""
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self) -> None:
        while True:
            try:
                await self._take_all()
            except DockerError as exc:
                if 400 <= exc.status < 500:  # something between us and the Engine that allows calls one by one
                    _log.info("the docker engine tells no events: cold calls take a little longer", error=exc.message)
                    return
            except (ValueError, *ENGINE_ERRORS):
                pass  # the Engine went away, in the midst of an event perhaps
            await pause(self._engine.clock, _AGAIN_S)

    async def _take_all(self) -> None:
        """Take events as long as the connection holds."""
        events = self._engine.docker.events
        subscriber = events.subscribe(create_task=False)  # type: ignore[no-untyped-call]  # the library's
        source = asyncio.get_running_loop().create_task(events.run(filters=self._filters))
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
