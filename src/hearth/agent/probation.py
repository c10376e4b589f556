"""Decide which containers are watched for a moment after an answer (protocols specification 11).

A function that writes a second answer by mistake would give it to the next call, and from then on each call the answer
of the one before. So a container proves itself: its stdout has to be quiet for a moment after each of its first answers
before its slot is offered. A function that has written surplus output once stays on probation in all its containers.
The answer itself waits for none of this.
"""

from __future__ import annotations

from typing import Final

from hearth.agent.quiet import Lag
from hearth.models.function import FunctionRef

#: Answers after which a container has proved itself.
PROBATION_ANSWERS: Final = 5
#: Bounds of the watch, seconds. A driver that sees unread input also catches what comes later: a short watch will do.
_MIN_S: Final = 0.001
_MAX_S: Final = 0.005


class Probation:
    """Decides for how long a container is watched.

    Args:
        lag: How late things come on this node.
        sees_unread: The driver tells how much of its input a container has not read yet.

    Attributes:
        suspects: Functions that have written more than one answer to a call.
    """

    def __init__(self, lag: Lag, *, sees_unread: bool) -> None:
        self._lag = lag
        self._sees_unread = sees_unread
        self.suspects: set[FunctionRef] = set()

    def __repr__(self) -> str:
        return f"<Probation suspects={len(self.suspects)}>"

    def watch_s(self, ref: FunctionRef, answers: int) -> float:
        """Return how long stdout must be quiet after the latest of so many answers; 0 for a proven container."""
        if ref in self.suspects:
            return _MAX_S
        if answers > PROBATION_ANSWERS:
            return 0.0
        return min(max(_MIN_S, self._lag.margin_s), _MAX_S) if self._sees_unread else _MAX_S
