"""Memory that the heads of requests take, over all connections: callers must not fill what functions have."""

from __future__ import annotations

from typing import Final

from hearth.models.errors import ServerBusy
from hearth.server.http.clients import Client
from hearth.server.http.parsing import Refused, RequestHead

#: Bytes of heads of all connections together, from their first byte until they are answered. Above it, heads larger
#: than the second number are refused. A smaller head that has ended is not counted.
MAX_HEADS_BYTES: Final = 64 << 20
SMALL_HEAD_BYTES: Final = 16 * 1024


class HeadBudget:
    """The bytes that all connections hold."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class HeldHeads:
    """The bytes that one connection holds.

    Attributes:
        counted: Those that the budget knows of.
        client: The client of the connection, once it is known.
        is_partial: A head has started and not ended.
    """

    __slots__ = ("_budget", "_kept", "client", "counted", "is_partial")

    def __init__(self, budget: HeadBudget) -> None:
        self._budget = budget
        self.counted = 0
        self._kept = 0
        self.client: Client | None = None
        self.is_partial = False

    def count(self, unfinished: int) -> None:
        """Count a head that has not ended.

        Raises:
            Refused: It is large, and too many are held; or the client has too many heads in progress.
        """
        if not self.is_partial and self.client is not None:
            self.is_partial = True
            if not self.client.begin_head():
                raise Refused(429, "Too many request headers in progress from this address")
        self._update(unfinished)
        if unfinished > SMALL_HEAD_BYTES:
            self._check()

    def keep(self, head: RequestHead) -> None:
        """Count a large head that has ended.

        Raises:
            Refused: Too many are held.
        """
        self._kept += sum([len(name) + len(value) for name, value in head.headers])
        self._update(0)
        self._check()

    def end(self) -> None:
        """Note that the head has ended, or never will."""
        if self.is_partial and self.client is not None:
            self.is_partial = False
            self.client.end_head()

    def release(self) -> None:
        """Count nothing: all requests are answered, or the client has left."""
        self._kept = 0
        self._update(0)

    def _update(self, unfinished: int) -> None:
        held = unfinished + self._kept
        self._budget.held += held - self.counted
        self.counted = held

    def _check(self) -> None:
        if self._budget.held > MAX_HEADS_BYTES:
            raise Refused(503, ServerBusy.message)
