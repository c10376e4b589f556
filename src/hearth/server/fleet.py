"""The nodes that report themselves to this one, and this node itself.

They are kept in memory: a report is worth nothing a minute later, and a node that starts knows its fleet after one
period. Whether a node drains is its own state; here is only the order, until the node has confirmed it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Final

from hearth.aio.clock import Clock
from hearth.models.errors import NodeNotFound
from hearth.models.node import NodeReport

#: Seconds between two reports of a node.
PERIOD_S: Final = 5.0
#: Seconds without a report after which a node counts as away, and after which it is forgotten.
_AWAY_S: Final = 30.0
_FORGET_S: Final = 900.0
#: Nodes that are remembered; a holder of the runner token can make up names.
_MOST_NODES: Final = 1_000

READY: Final = "ready"
DRAINING: Final = "draining"
AWAY: Final = "away"


@dataclasses.dataclass(frozen=True, slots=True)
class SeenNode:
    """A node with the time of its last report."""

    report: NodeReport
    last_seen: dt.datetime
    state: str


@dataclasses.dataclass(slots=True)
class _Known:
    report: NodeReport
    seen_at: float
    last_seen: dt.datetime
    is_to_drain: bool = False


class Fleet:
    """The nodes that this node knows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._own: Callable[[], NodeReport] | None = None
        self._drain_own: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Fleet nodes={len(self._known)}>"

    def join(self, report: Callable[[], NodeReport], drain: Callable[[], None]) -> None:
        """Add this node itself."""
        self._own, self._drain_own = report, drain

    def note(self, report: NodeReport) -> bool:
        """Keep the report of a node; return whether it is to drain. One under the id of this node is dropped."""
        if self._own is not None and self._own().id == report.id:
            return False
        before = self._known.pop(report.id, None)
        is_same = before is not None and before.report.started_at == report.started_at
        known = _Known(report, self._clock.monotonic(), self._clock.now())
        known.is_to_drain = before is not None and before.is_to_drain and is_same and not report.draining
        self._known[report.id] = known  # the last one is the newest
        self._forget()
        return known.is_to_drain

    def nodes(self) -> list[SeenNode]:
        """Return all nodes, this one first, the others by name."""
        self._forget()
        others = sorted(self._known.values(), key=lambda one: (one.report.host, one.report.id))
        return [*self._itself(), *(self._seen(one) for one in others)]

    def drain(self, node_id: str) -> SeenNode:
        """Let a node drain: this one now, another one with its next report.

        Raises:
            NodeNotFound: No node has reported itself under this id.
        """
        self._forget()
        for itself in self._itself():
            if itself.report.id == node_id and self._drain_own is not None:
                self._drain_own()
                return next(self._itself())
        known = self._known.get(node_id)
        if known is None:
            raise NodeNotFound
        known.is_to_drain = not known.report.draining
        return self._seen(known)

    def _itself(self) -> Iterator[SeenNode]:
        if self._own is not None:
            report = self._own()
            yield SeenNode(report, self._clock.now(), DRAINING if report.draining else READY)

    def _seen(self, known: _Known) -> SeenNode:
        is_away = self._clock.monotonic() - known.seen_at > _AWAY_S
        drains = known.report.draining or known.is_to_drain
        return SeenNode(known.report, known.last_seen, AWAY if is_away else DRAINING if drains else READY)

    def _forget(self) -> None:
        limit = self._clock.monotonic() - _FORGET_S
        while self._known:
            oldest = next(iter(self._known.values()))
            if oldest.seen_at >= limit and len(self._known) <= _MOST_NODES:
                return
            del self._known[oldest.report.id]
