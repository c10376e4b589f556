"""Failed starts of one function: the back-off, and the error that new calls get at once (agent specification 4)."""

from __future__ import annotations

import random
from typing import Final

from hearth.drivers.base import ImageHasVolumes, ImageNotFound, ImageRefused, StartFailed
from hearth.models.errors import fresh

#: Seconds until the next start after the first failure, and at most (agent specification 4).
_FIRST_BACK_OFF_S: Final = 0.025
_MAX_BACK_OFF_S: Final = 3.2
#: Seconds for which new calls get a permanent error at once instead of waiting (agent specification 4).
_FAIL_FAST_S: Final = 1.0


def back_off_s(failures: int) -> float:
    """Return the seconds between starts after so many failures in a row, before jitter."""
    return min(_MAX_BACK_OFF_S, _FIRST_BACK_OFF_S * 2.0 ** (failures - 1)) if failures else 0.0


def is_permanent(error: Exception) -> bool:
    """Return True if the image is at fault, so another start would fail in the same way."""
    if isinstance(error, StartFailed):
        return error.image_fault
    return isinstance(error, ImageNotFound | ImageRefused | ImageHasVolumes)


class StartFailures:
    """Remember the failures of one function.

    Attributes:
        not_before: Loop time before which no container starts.
        in_a_row: Failures since the last container that started.
    """

    def __init__(self) -> None:
        self.not_before = 0.0
        self.in_a_row = 0
        self._permanent: tuple[float, Exception] | None = None

    def note(self, error: Exception, now: float) -> None:
        """Remember one more failure. Jitter in [0.5, 1) spreads functions that failed together."""
        self.in_a_row += 1
        self.not_before = now + back_off_s(self.in_a_row) * (0.5 + random.random() / 2)
        if is_permanent(error):
            self._permanent = (now, fresh(error))

    def check(self, now: float, *, has_containers: bool) -> None:
        """Raise the last permanent error if it is recent and no container is there or on its way.

        Raises:
            HearthError: That error.
        """
        if self._permanent is None:
            return
        when, error = self._permanent
        if has_containers or now - when > _FAIL_FAST_S:
            self._permanent = None
            return
        raise fresh(error)
