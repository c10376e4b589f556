"""Pin the images of functions that could not be resolved when they were deployed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from hearth.access.base import PinTarget
from hearth.aio.background import Background
from hearth.drivers.base import Container
from hearth.models.errors import HearthError
from hearth.models.function import FunctionSpec
from hearth.models.image import Pin, is_pinned
from hearth.telemetry.logs import get_logger

#: Called with a function, and a container that was made of its image.
NoteImage = Callable[[FunctionSpec, Container], None]

#: Functions that are remembered because they are being asked for, or have an image without a digest.
_MAX_ASKED: Final = 10_000

_log = get_logger(__name__)


def ignore_image(spec: FunctionSpec, container: Container) -> None:
    """Note nothing."""


class Pins:
    """Finds out the digests of images that containers run under a tag, and stores them.

    Args:
        digest_of: Returns the digest of a container's image; empty if that is unknown.
        target: Stores it.
    """

    def __init__(self, digest_of: Callable[[Container], Awaitable[str]], target: PinTarget) -> None:
        self._digest_of = digest_of
        self._target = target
        self._asked: set[tuple[str, str]] = set()
        self._background = Background(lambda exc: _log.error("image not pinned", exc_info=exc))

    async def close(self) -> None:
        """Give up what is under way: the next container tries again."""
        await self._background.cancel()

    def note(self, spec: FunctionSpec, container: Container) -> None:
        """Pin the image of a function in the background; one whose digest nobody knows is asked for once."""
        key = (spec.ref.id, spec.image)
        if is_pinned(spec.image) or key in self._asked:
            return
        if len(self._asked) >= _MAX_ASKED:
            self._asked.clear()
        self._asked.add(key)
        self._background.run(self._pin(spec, container, key))

    async def _pin(self, spec: FunctionSpec, container: Container, key: tuple[str, str]) -> None:
        ref = spec.ref
        try:
            if digest := await self._digest_of(container):
                await self._target.pin(Pin(ref.app_name, ref.id if ref.is_fn else ref.name, spec.image, digest))
                self._asked.discard(key)  # the image may be set again, and mean another one
        except HearthError as exc:
            self._asked.discard(key)
            _log.warning("image not pinned", app_name=ref.app_name, path=ref.name, image=spec.image, error=str(exc))
