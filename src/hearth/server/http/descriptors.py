"""File descriptors that connections leave free, for files, containers and refusals."""

from __future__ import annotations

import resource
from typing import Final

from hearth.telemetry.logs import get_logger
from hearth.telemetry.series import Series

#: An eighth of all is left free, within these bounds.
_MIN_RESERVED: Final = 8
_MAX_RESERVED: Final = 64

_log = get_logger(__name__)


class Descriptors:
    """Tells connections that can be served from those that cannot.

    Args:
        first_reserved: The first descriptor that no connection keeps.
        limit: Of the process. Where less than half of the reserved ones are left, none is kept for a refusal either.
        refused: Counts the connections that cannot be served.
    """

    def __init__(self, first_reserved: int, limit: int, refused: Series | None = None) -> None:
        self._first_reserved = first_reserved
        self._first_scarce = (first_reserved + limit) // 2
        self._refused = refused or Series()
        self._is_short = False

    @classmethod
    def of_process(cls, refused: Series | None) -> Descriptors:
        """Return those of this process."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(soft - max(_MIN_RESERVED, min(_MAX_RESERVED, soft // 8)), soft, refused)

    @property
    def most(self) -> int:
        """The most connections that may be served at once."""
        return self._first_reserved

    def admit(self, descriptor: int) -> bool:
        """Return whether a connection with this descriptor is served; the kernel gives the lowest free one."""
        is_short = descriptor >= self._first_reserved
        if is_short:
            self._refused.value += 1
        if is_short is not self._is_short:
            self._is_short = is_short
            if is_short:
                _log.error("out of file descriptors, connections are refused", limit=self._first_reserved)
            else:
                _log.info("connections are accepted again")
        return not is_short

    def are_scarce(self, descriptor: int) -> bool:
        """Return whether a connection that is refused must be closed at once: the next one needs its descriptor.

        The kernel has none for a connection that it cannot give a descriptor: libuv closes it without an answer.
        """
        return descriptor >= self._first_scarce
