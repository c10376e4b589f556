"""The last hour of a node and of each of its functions, kept in memory.

The counters of the node only grow. Every few seconds :class:`Recent` reads those that have changed and adds the
difference to a ring of rows: for the node one row per period, for a function one per minute. A function has a ring only
while it was called within the hour, so 10,000 busy functions take 30 MiB and idle ones nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec

from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock, next_turn, pause
from hearth.models.function import NOTHING, Amount
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import TIME_BUCKETS, of_span
from hearth.telemetry.series import NO_LABELS, Labels, Value

#: Seconds between two looks at the counters, which is the period of the node's rows.
PERIOD_S: Final = 5
HOUR_S: Final = 3600
_MINUTE_S: Final = 60
#: Work between two turns of the event loop, about a millisecond: each function counts, one that was called for more.
_AT_ONCE: Final = 400
_OF_CALLED: Final = 20
#: Counted in a row.
COUNTS: Final = ("calls", "completed", "errors", "busy", "cold_starts")
#: Taken from the histogram of a row when it is read.
LATENCIES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
#: The last values within a row.
GAUGES: Final = ("queued", "running", "granted_mib", "used_mib")
_OF_FUNCTIONS: Final = (*COUNTS, *LATENCIES)
_OF_NODE: Final = (*_OF_FUNCTIONS, *GAUGES)
_STATES: Final = ("wait", "start", "idle", "busy")
_NO_TIMES: Final = (0,) * (len(TIME_BUCKETS) + 1)
_MIB: Final = 1 << 20

_log = get_logger(__name__)


def percentile(counts: Sequence[int], share: float) -> float:
    """Return an estimate of a percentile in milliseconds, from the counts of the buckets of times.

    Within a bucket, values count as spread evenly. What lasted longer than the last bound counts as that.
    """
    total = sum(counts)
    if not total:
        return 0.0
    rank = share * total
    below = 0.0
    for count, (low, high) in zip(counts, itertools.pairwise((0.0, *TIME_BUCKETS)), strict=False):
        if below + count >= rank and count:
            return (low + (high - low) * (rank - below) / count) * 1000
        below += count
    return TIME_BUCKETS[-1] * 1000


class Ring:
    """Rows of numbers, one per period; a new row replaces the oldest."""

    __slots__ = ("_columns", "_newest", "_rows", "_spread", "_table")

    def __init__(self, columns: Sequence[str], rows: int, newest: int) -> None:
        self._columns = columns
        self._rows = rows
        self._newest = newest
        self._table = array("f", bytes(4 * rows * len(columns)))
        self._spread: list[int] = list(_NO_TIMES)

    @property
    def newest(self) -> int:
        """The number of the newest row: its time, divided by the period."""
        return self._newest

    def advance(self, number: int) -> None:
        """Begin the row of a period, unless it is the newest; periods without a row are zeros."""
        width = len(self._columns)
        for one in range(max(self._newest + 1, number - self._rows + 1), number + 1):
            start = one % self._rows * width
            self._table[start : start + width] = array("f", bytes(4 * width))
            self._spread = list(_NO_TIMES)
        self._newest = max(self._newest, number)

    def add(self, counts: Mapping[str, float], times: Sequence[int]) -> None:
        """Add to the newest row: counts, and by bucket how many calls took that long."""
        start = self._newest % self._rows * len(self._columns)
        for name, value in counts.items():
            self._table[start + self._columns.index(name)] += value
        if any(times):
            self._spread = [old + new for old, new in zip(self._spread, times, strict=True)]
            for name, share in LATENCIES.items():
                self._table[start + self._columns.index(name)] = percentile(self._spread, share)

    def set(self, gauges: Mapping[str, float]) -> None:
        """Set values of the newest row."""
        start = self._newest % self._rows * len(self._columns)
        for name, value in gauges.items():
            self._table[start + self._columns.index(name)] = value

    def column(self, name: str, number: int) -> list[float]:
        """Return a column, oldest row first, as of the period with this number."""
        width, at = len(self._columns), self._columns.index(name)
        found = [0.0] * self._rows
        for place, one in enumerate(range(number - self._rows + 1, number + 1)):
            if self._newest - self._rows < one <= self._newest:
                found[place] = round(self._table[one % self._rows * width + at], 2)
        return found

    def row(self) -> dict[str, float]:
        """Return the newest row."""
        start = self._newest % self._rows * len(self._columns)
        values = self._table[start : start + len(self._columns)]
        return {name: round(value, 2) for name, value in zip(self._columns, values, strict=True)}

    def columns(self, number: int) -> dict[str, list[float]]:
        """Return all columns; see :meth:`column`."""
        return {name: self.column(name, number) for name in self._columns}


class _Counted(msgspec.Struct):
    """The counters of a function at the last look.

    Attributes:
        was_active: Calls were in progress, so counters may change although no call comes.
        used_mib: The mean memory of its containers, when that was last measured.
    """

    counts: tuple[float, ...]
    times: tuple[int, ...]
    memory: tuple[float, int]
    was_active: bool
    used_mib: float = 0.0


class _New(NamedTuple):
    """The calls of a function since the last look, and by bucket how many took that long."""

    counts: dict[str, float]
    times: list[int]


class Recent(BackgroundService):
    """Watches the metrics of a node, while this async context manager is entered.

    Args:
        metrics: The metrics of the node.
        granted: Returns the memory and CPU that containers hold.
        total: What they may hold; nothing on a node that runs no calls.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        granted: Callable[[], Amount] = lambda: NOTHING,
        total: Amount = NOTHING,
    ) -> None:
        super().__init__(lambda exc: _log.error("the dashboard shows no new numbers", exc_info=exc))
        self._clock = clock
        self._granted = granted
        self.total = total
        self._families = {
            "calls": metrics.counter("fn_calls"),
            "completed": metrics.counter("fn_completed"),
            "errors": metrics.counter("fn_failed"),
            "busy": metrics.counter("fn_server_busy"),
        }
        self._times = metrics.histogram(of_span("agent_submit"))
        self._starts = metrics.histogram("fn_container_start_duration_seconds")
        self._memory = metrics.histogram("fn_docker_stats_fn_mem_usage")
        self._queued = metrics.gauge("fn_queued")
        self._running = metrics.gauge("fn_running")
        self._containers = {state: metrics.gauge(f"fn_container_{state}_total") for state in _STATES}
        self._accepted = metrics.gauge("hearth_queue_length")
        self._oldest_age = metrics.gauge("hearth_queue_oldest_age_seconds")
        self._counted: dict[Labels, _Counted] = {}
        self._rings: dict[Labels, Ring] = {}
        self._node = Ring(_OF_NODE, HOUR_S // PERIOD_S, self._number(PERIOD_S))
        self._minute = 0
        self._looked = asyncio.Event()
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Recent functions={len(self._rings)}>"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        await super().__aexit__(kind, error, traceback)

    def stop(self) -> None:
        """End what waits for the next look: the node stops."""
        self._stopped = True
        self._looked.set()

    # -- looking ------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read the counters that have changed, and begin new rows."""
        self._node.advance(self._number(PERIOD_S))
        minute = self._number(_MINUTE_S)
        used_mib = all_queued = all_running = 0.0
        work = 0
        counts: dict[str, float] = dict.fromkeys(COUNTS, 0.0)
        times = list(_NO_TIMES)
        for labels, calls in self._families["calls"].all():
            work += 1
            if work >= _AT_ONCE:
                work = 0
                await next_turn()
            queued, running = _value(self._queued, labels), _value(self._running, labels)
            all_queued, all_running = all_queued + queued, all_running + running
            is_active = bool(queued or running)
            counted = self._counted.get(labels)
            if counted is None or is_active or counted.was_active or counted.counts[0] != calls.value:
                work += _OF_CALLED
                new = self._note(labels, minute, self._read(labels, is_active=is_active))
                counted = self._counted[labels]
                counts = {name: value + new.counts[name] for name, value in counts.items()}
                times = [old + more for old, more in zip(times, new.times, strict=True)]
            if counted.used_mib:
                used_mib += counted.used_mib * sum(self.containers(labels).values())
        self._node.add(counts, times)
        self._node.set(
            {
                "queued": all_queued,
                "running": all_running,
                "granted_mib": self._granted().memory_mib,
                "used_mib": used_mib,
            }
        )
        if minute != self._minute:
            self._minute = minute
            self._forget(minute)
        self._looked.set()
        self._looked = asyncio.Event()

    def _read(self, labels: Labels, *, is_active: bool) -> _Counted:
        starts, times, memory = self._starts.find(labels), self._times.find(labels), self._memory.find(labels)
        counts = tuple(_value(self._families[name], labels) for name in COUNTS[:-1])
        return _Counted(
            (*counts, 0.0 if starts is None else float(sum(starts.counts))),
            _NO_TIMES if times is None else tuple(times.counts),
            (0.0, 0) if memory is None else (memory.total, sum(memory.counts)),
            is_active,
        )

    def _note(self, labels: Labels, minute: int, now: _Counted) -> _New:
        """Add the difference between two looks to the ring of a function, and return it."""
        before = self._counted.get(labels) or _Counted((0.0,) * len(COUNTS), _NO_TIMES, (0.0, 0), was_active=False)
        # A function that was deleted and created again counts from zero once more.
        began = now.counts[0] < before.counts[0]
        earlier = (0.0,) * len(COUNTS) if began else before.counts
        counts = {name: max(0.0, new - old) for name, new, old in zip(COUNTS, now.counts, earlier, strict=True)}
        times = [max(0, new - (0 if began else old)) for new, old in zip(now.times, before.times, strict=True)]
        samples = now.memory[1] - before.memory[1]
        now.used_mib = (now.memory[0] - before.memory[0]) / samples / _MIB if samples > 0 else before.used_mib
        self._counted[labels] = now
        if labels != NO_LABELS and any(counts.values()):  # what has no labels is of functions beyond the limit
            ring = self._rings.get(labels)
            if ring is None:
                ring = self._rings[labels] = Ring(_OF_FUNCTIONS, HOUR_S // _MINUTE_S, minute)
            ring.advance(minute)
            ring.add(counts, times)
        return _New(counts, times)

    def _forget(self, minute: int) -> None:
        for labels in [one for one, ring in self._rings.items() if minute - ring.newest >= HOUR_S // _MINUTE_S]:
            del self._rings[labels]
        calls = self._families["calls"]
        for labels in [one for one in self._counted if calls.find(one) is None]:
            del self._counted[labels]

    # -- showing ------------------------------------------------------------------------------------------------------

    def containers(self, labels: Labels) -> dict[str, int]:
        """Return how many containers of a function are in each state."""
        return {state: int(_value(family, labels)) for state, family in self._containers.items()}

    def node_history(self) -> dict[str, Any]:
        """Return the last hour of the node."""
        number = self._node.newest
        return {"step_s": PERIOD_S, "end": (number + 1) * PERIOD_S, "columns": self._node.columns(number)}

    def function_history(self, labels: Labels) -> dict[str, Any]:
        """Return the last hour of a function: zeros if it was not called."""
        number = self._number(_MINUTE_S)
        ring = self._rings.get(labels) or Ring(_OF_FUNCTIONS, HOUR_S // _MINUTE_S, number)
        times = self._times.find(labels)
        return {
            "step_s": _MINUTE_S,
            "end": (number + 1) * _MINUTE_S,
            "columns": ring.columns(number),
            "bounds_s": list(TIME_BUCKETS),
            "times": list(_NO_TIMES) if times is None else list(times.counts),
        }

    def activity(self, labels: Labels) -> dict[str, Any] | None:
        """Return the calls of a function per minute, and its last hour in numbers; ``None`` if it was not called."""
        ring = self._rings.get(labels)
        if ring is None:
            return None
        number = self._number(_MINUTE_S)
        calls, p95 = ring.column("calls", number), ring.column("p95_ms", number)
        return {
            "calls_per_minute": calls,
            "calls": sum(calls),
            "errors": sum(ring.column("errors", number)),
            "cold_starts": sum(ring.column("cold_starts", number)),
            "p95_ms": max(p95),
        }

    def functions(self, app: str | None = None) -> list[Labels]:
        """Return the functions that were called within the hour: all, or those of an app."""
        return [labels for labels in list(self._rings) if app is None or labels[0] == app]

    def node_now(self) -> dict[str, Any]:
        """Return the newest row of the node, and what changes with every moment."""
        return {
            "end": (self._node.newest + 1) * PERIOD_S,
            "row": self._node.row(),
            "total_mib": self.total.memory_mib,
            "queue_length": self._accepted.series().value,
            "queue_oldest_age_s": round(self._oldest_age.series().value, 1),
        }

    def function_now(self, labels: Labels) -> dict[str, Any]:
        """Return the containers and calls of a function, and its present minute."""
        number = self._number(_MINUTE_S)
        ring = self._rings.get(labels)
        row = ring.row() if ring is not None and ring.newest == number else dict.fromkeys(_OF_FUNCTIONS, 0.0)
        return {
            "end": (number + 1) * _MINUTE_S,
            "row": row,
            "containers": self.containers(labels),
            "queued": int(_value(self._queued, labels)),
            "running": int(_value(self._running, labels)),
        }

    async def looks(self) -> AsyncIterator[None]:
        """Yield now, and after each look, until the node stops."""
        while not self._stopped:
            yield
            await self._looked.wait()

    def _number(self, period_s: int) -> int:
        return self._clock.now_ms() // (1000 * period_s)

    async def _run(self) -> None:
        while True:
            await pause(self._clock, PERIOD_S)
            await self.look()


def _value(family: Value, labels: Labels) -> float:
    found = family.find(labels)
    return 0.0 if found is None else found.value
