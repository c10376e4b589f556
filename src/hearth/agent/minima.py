"""The containers that functions want kept ready on a node (``min_instances``), and how many of them it can keep.

Together they may use a part of the node only: calls of other functions need the rest. What a function gets less than it
wants is reported, and started as soon as another function wants less.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from hearth.agent.function import Function
from hearth.agent.lending import WHOLE, Part
from hearth.models.function import Amount
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Percent of the memory and CPU of a node that containers kept ready may use together.
PERCENT: Final = 80

_log = get_logger(__name__)


class Keeper(Protocol):
    """The launcher of a function, as seen from here."""

    @property
    def function(self) -> Function:
        """Return the function."""

    @property
    def lacks(self) -> int:
        """Return how many containers it has less than it keeps."""

    def keep(self, minimum: int) -> None:
        """Keep so many containers ready from now on."""

    def evaluate(self) -> None:
        """Start what is lacking, as far as there is room."""


class Minima:
    """Divides a part of a node among the functions that want containers kept ready, in order of arrival.

    Args:
        total: What the containers of the node may use together.
        part: That of this worker.

    Attributes:
        is_stopped: The node ends: no container is kept ready any more.
    """

    def __init__(self, total: Amount, metrics: Metrics, part: Part = WHOLE) -> None:
        share = 100 * part.workers
        self._limit = Amount(total.memory_mib * PERCENT // share, total.cpu_milli * PERCENT // share)
        self._wanted: dict[Keeper, int] = {}
        self._kept: dict[Keeper, int] = {}
        self._asked = metrics.gauge("hearth_min_instances")
        self._unmet = metrics.gauge("hearth_min_instances_unmet")
        self.is_stopped = False
        self._looks_soon = False

    def __repr__(self) -> str:
        return f"<Minima kept={sum(self._kept.values())} of {sum(self._wanted.values())} within {self._limit}>"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the operator should know: how many containers are lacking; names are in the metrics."""
        lacking = [lack for one, wanted in self._wanted.items() if (lack := wanted - self._kept[one])]
        if not lacking:
            return ()
        return (
            f"min_instances is not met for {len(lacking)} function(s): {sum(lacking)} container(s) are above "
            f"{PERCENT} % of this node ({self._limit.memory_mib} MiB, {self._limit.cpu_milli} thousandths of a core)",
        )

    def want(self, keeper: Keeper, minimum: int) -> None:
        """Keep so many containers of a function ready from now on, or as many as there is room for."""
        if self.is_stopped or minimum == self._wanted.get(keeper, 0):
            return
        if minimum:
            self._wanted[keeper] = minimum
        else:
            self._forget(keeper)
        self._divide()

    def drop(self, keeper: Keeper) -> None:
        """Keep no container of a function: it has changed, or is gone."""
        self.want(keeper, 0)

    def stop(self) -> None:
        """Keep no container ready any more: the node ends."""
        for keeper in list(self._wanted):
            self._forget(keeper)
        self.is_stopped = True

    def look_soon(self) -> None:
        """Start in the next tick what is lacking: there may be room now."""
        if not self._looks_soon and self._wanted:
            self._looks_soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looks_soon = False
        for keeper in list(self._wanted):
            if keeper.lacks:
                keeper.evaluate()

    def _forget(self, keeper: Keeper) -> None:
        del self._wanted[keeper]
        self._kept.pop(keeper, None)
        for gauge in (self._asked, self._unmet):
            gauge.series(*keeper.function.ref.labels).value = 0
        keeper.keep(0)

    def _divide(self) -> None:
        left = self._limit
        for keeper, wanted in self._wanted.items():
            amount = keeper.function.spec.amount
            fitting = left.memory_mib // amount.memory_mib
            if amount.cpu_milli:
                fitting = min(fitting, left.cpu_milli // amount.cpu_milli)
            kept = min(wanted, fitting)
            left -= Amount(kept * amount.memory_mib, kept * amount.cpu_milli)
            self._keep(keeper, wanted, kept)

    def _keep(self, keeper: Keeper, wanted: int, kept: int) -> None:
        function = keeper.function
        self._asked.series(*function.ref.labels).value = wanted
        unmet = self._unmet.series(*function.ref.labels)
        if unmet.value != wanted - kept:
            unmet.value = wanted - kept
            fields = {"min_instances": wanted, "kept": kept, "limit_mib": self._limit.memory_mib}
            log = _log.warning if wanted > kept else _log.info
            log("min_instances not met" if wanted > kept else "min_instances met", **fields, **function.log_fields)
        self._kept[keeper] = kept
        keeper.keep(kept)
