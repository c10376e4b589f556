"""The store of pins as the rest of Hearth uses it."""

from __future__ import annotations

import abc

from hearth.models.image import Pin


class PinStore(abc.ABC):
    """The pins of functions.

    Updates of a function write its pin along with its image. This adds the pins that are known later only. A failure of
    the backend is a :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def pin(self, pin: Pin) -> bool:
        """Store the digest of a function's image, also in the newest version of its history.

        Nothing changes, and the answer is false, if the function has another image or a digest by now. An empty digest
        notes that this function was looked at.
        """

    @abc.abstractmethod
    async def get_unpinned(self) -> list[Pin]:
        """Return the functions that nobody has looked at since an earlier release created them."""
