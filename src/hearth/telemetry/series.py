"""The numbers of one metric, by labels.

They are plain numbers instead of metrics of the Prometheus client library, because each of those takes a lock: 1.0 us
to count and 1.6 us to observe, against 0.05 and 0.1 us here, and a warm call does 25 of these. They write their own
text, because the library's writer needs nine times as long and cannot stop between two series.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from hearth.telemetry.names import TIME_BUCKETS, Kind

if TYPE_CHECKING:  # the library takes 50 ms and 10 MiB: it is loaded at the first scrape
    from prometheus_client.metrics_core import Metric

Labels = tuple[str, str]
NO_LABELS: Final[Labels] = ("", "")
#: Series of one metric. Beyond that, Hearth counts without labels.
MAX_SERIES: Final = 10_000


class Series:
    """The number of a counter or a gauge with the same labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Spread:
    """The values of a histogram with the same labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Timed:
    """Counts how long something lasts, in several series at once.

    Args:
        find: Returns the series. A series exists from its first value on, so it is asked then.

    Attributes:
        begin: Starts to measure; returns what :meth:`end` needs.
    """

    __slots__ = ("_find", "_spreads")

    begin = staticmethod(perf_counter)

    def __init__(self, find: Callable[[], list[Spread]]) -> None:
        self._find = find
        self._spreads: list[Spread] = []

    def end(self, started: float, error: BaseException | None = None) -> None:
        """Count the time since then."""
        seconds = perf_counter() - started
        bucket = bisect_left(TIME_BUCKETS, seconds)
        for spread in self._spreads or self._first():
            spread.counts[bucket] += 1
            spread.total += seconds

    def _first(self) -> list[Spread]:
        self._spreads = self._find()
        return self._spreads


S = TypeVar("S", Series, Spread)


class _Family(Generic[S]):
    """All series of one name."""

    __slots__ = ("_all", "_new", "help", "kind", "name")

    def __init__(self, name: str, kind: Kind, help_text: str, new: Callable[[], S]) -> None:
        self.name = name
        self.kind = kind
        self.help = help_text
        self._new: Callable[[], S] = new
        self._all: dict[Labels, S] = {}

    def series(self, app: str = "", path: str = "") -> S:
        """Return the series with these labels; create it if necessary."""
        found = self._all.get((app, path))
        if found is None:
            key = (app, path) if len(self._all) < MAX_SERIES else NO_LABELS
            found = self._all.setdefault(key, self._new())
        return found

    def find(self, labels: Labels) -> S | None:
        """Return the series with these labels, if it exists."""
        return self._all.get(labels)

    def all(self) -> list[tuple[Labels, S]]:
        """Return the present series."""
        return list(self._all.items())

    def labels(self) -> Iterable[Labels]:
        """Return the labels of the present series."""
        return self._all.keys()

    def forget(self, app: str, path: str) -> None:
        """Remove a series. What a holder of it still counts is not exported."""
        self._all.pop((app, path), None)


class Value(_Family[Series]):
    """A counter or a gauge."""

    __slots__ = ()

    def __init__(self, name: str, kind: Kind) -> None:
        super().__init__(name, kind, f"Metric {name}", Series)
        self.series()  # what has not happened yet shows as zero, not as missing

    def add(self, by: float = 1.0, app: str = "", path: str = "") -> None:
        """Count, or move the gauge."""
        self.series(app, path).value += by

    def set(self, value: float) -> None:
        """Set the gauge without labels."""
        self.series().value = value

    def texts(self) -> Iterator[str]:
        """Yield the exposition, one series at a time."""
        for labels, series in self.all():
            yield f"{self.name}{{{_labels(labels)}}} {_number(series.value)}\n"

    def collect(self) -> Metric:
        """Return the library's form of it."""
        from prometheus_client.metrics_core import Metric

        family = Metric(self.name, self.help, self.kind)
        name = f"{self.name}_total" if self.kind == "counter" else self.name
        for (app, path), series in self.all():
            family.add_sample(name, {"fn_appname": app, "fn_path": path}, series.value)
        return family


class Histogram(_Family[Spread]):
    """A histogram."""

    __slots__ = ("_bounds",)

    def __init__(self, name: str, bounds: Sequence[float] = TIME_BUCKETS, help_text: str = "") -> None:
        super().__init__(name, "histogram", help_text or f"Metric {name}", functools.partial(Spread, bounds))
        self._bounds = [_number(bound) for bound in (*bounds, float("inf"))]

    def observe(self, value: float, app: str = "", path: str = "") -> None:
        """Add one value."""
        self.series(app, path).observe(value)

    def texts(self) -> Iterator[str]:
        """Yield the exposition, one series at a time."""
        ends = [f'le="{bound}"}}' for bound in self._bounds]
        for labels, spread in self.all():
            text = _labels(labels)
            start = f"{self.name}_bucket{{{text},"
            so_far = list(itertools.accumulate(spread.counts))
            buckets = "".join([f"{start}{end} {count}\n" for end, count in zip(ends, so_far, strict=True)])
            total = f"{self.name}_sum{{{text}}} {_number(spread.total)}\n"
            yield f"{buckets}{total}{self.name}_count{{{text}}} {so_far[-1]}\n"

    def collect(self) -> Metric:
        """Return the library's form of it."""
        from prometheus_client.metrics_core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.help, labels=("fn_appname", "fn_path"))
        for labels, spread in self.all():
            buckets = zip(self._bounds, itertools.accumulate(spread.counts), strict=True)
            family.add_metric(labels, list(buckets), spread.total)
        return family


def _labels(labels: Labels) -> str:
    return f'fn_appname="{_escaped(labels[0])}",fn_path="{_escaped(labels[1])}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
