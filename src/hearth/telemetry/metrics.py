"""Metrics of the node: fixed names, one fixed set of labels (operations specification 2).

Every metric has the labels ``fn_appname`` and ``fn_path``, empty where they do not apply. Names of counters carry no
``_total``: dashboards of Fn select them as they are. That, and the cost of one observation on the hot path, is why the
samples are kept here; what the process itself uses is told by the Prometheus client library.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from hearth.telemetry.names import METRICS, TIME_BUCKETS, Kind

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, str]
_NO_LABELS: Final[Labels] = ("", "")
#: Series that a metric may have. What comes when they are taken is counted without labels.
MAX_SERIES: Final = 10_000
#: Characters of the exposition that are written in one go: a millisecond's work or less.
_PIECE: Final = 64 * 1024


class Series:
    """One number of a counter or a gauge: for who counts so often that finding it again would tell."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Value:
    """A counter or a gauge."""

    __slots__ = ("_kind", "_name", "_series")

    def __init__(self, name: str, kind: Kind) -> None:
        self._name = name
        self._kind = kind
        self._series: dict[Labels, Series] = {_NO_LABELS: Series()}

    @property
    def kind(self) -> Kind:
        """Which of the two."""
        return self._kind

    def series(self, app: str = "", path: str = "") -> Series:
        """The number with these labels."""
        found = self._series.get((app, path))
        if found is None:
            key = (app, path) if len(self._series) < MAX_SERIES else _NO_LABELS
            found = self._series.setdefault(key, Series())
        return found

    def add(self, by: float = 1.0, app: str = "", path: str = "") -> None:
        """Count, or move the gauge."""
        self.series(app, path).value += by

    def set(self, value: float, app: str = "", path: str = "") -> None:
        """Put the gauge somewhere."""
        self.series(app, path).value = value

    def get(self, app: str = "", path: str = "") -> float:
        """What it says."""
        found = self._series.get((app, path))
        return found.value if found is not None else 0.0

    def labels(self) -> Iterable[Labels]:
        """Those of its series."""
        return self._series.keys()

    def forget(self, app: str, path: str) -> None:
        """Drop a series."""
        self._series.pop((app, path), None)

    def texts(self) -> Iterator[str]:
        """The text exposition, one series at a time. In between series may come and go."""
        yield _heading(self._name, self._kind, f"Metric {self._name}")
        for labels, series in list(self._series.items()):
            yield f"{self._name}{{{_labels(labels)}}} {_number(series.value)}\n"


class Spread:
    """The values of a histogram with the same labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One value."""
        self.counts[bisect.bisect_left(self._bounds, value)] += 1
        self.total += value


class Histogram:
    """How values are spread over buckets."""

    __slots__ = ("_bounds", "_help", "_name", "_series")

    def __init__(self, name: str, bounds: Sequence[float] = TIME_BUCKETS, help_text: str = "") -> None:
        self._name = name
        self._bounds = bounds
        self._help = help_text or f"Metric {name}"
        self._series: dict[Labels, Spread] = {}

    def series(self, app: str = "", path: str = "") -> Spread:
        """The values with these labels."""
        found = self._series.get((app, path))
        if found is None:
            key = (app, path) if len(self._series) < MAX_SERIES else _NO_LABELS
            found = self._series.setdefault(key, Spread(self._bounds))
        return found

    def observe(self, value: float, app: str = "", path: str = "") -> None:
        """One value."""
        self.series(app, path).observe(value)

    def count(self, app: str = "", path: str = "") -> int:
        """How many values there were."""
        found = self._series.get((app, path))
        return sum(found.counts) if found is not None else 0

    def labels(self) -> Iterable[Labels]:
        """Those of its series."""
        return self._series.keys()

    def forget(self, app: str, path: str) -> None:
        """Drop a series."""
        self._series.pop((app, path), None)

    def texts(self) -> Iterator[str]:
        """The text exposition, one series at a time. In between series may come and go."""
        yield _heading(self._name, "histogram", self._help)
        ends = [f'le="{_number(bound)}"}}' for bound in (*self._bounds, float("inf"))]
        for labels, spread in list(self._series.items()):
            text = _labels(labels)
            start = f"{self._name}_bucket{{{text},"
            so_far = list(itertools.accumulate(spread.counts))
            buckets = "".join([f"{start}{end} {count}\n" for end, count in zip(ends, so_far, strict=True)])
            total = f"{self._name}_sum{{{text}}} {_number(spread.total)}\n"
            yield f"{buckets}{total}{self._name}_count{{{text}}} {so_far[-1]}\n"


_METRICS: Final[dict[str, Value | Histogram]] = {}


def counter(name: str) -> Value:
    """The counter of this name."""
    return _value(name, "counter")


def gauge(name: str) -> Value:
    """The gauge of this name."""
    return _value(name, "gauge")


def histogram(name: str, bounds: Sequence[float] | None = None, help_text: str = "") -> Histogram:
    """The histogram of this name, with the buckets of its unit unless told otherwise."""
    found = _METRICS.get(name)
    if found is None:
        if bounds is None:
            bounds = METRICS[name].buckets if name in METRICS else TIME_BUCKETS
        found = _METRICS[name] = Histogram(name, bounds, help_text)
    if not isinstance(found, Histogram):
        raise TypeError(f"{name} is no histogram")
    return found


def labels() -> set[Labels]:
    """The apps and paths that any series is about."""
    return {pair for metric in _METRICS.values() for pair in metric.labels() if pair != _NO_LABELS}


def forget(app: str, path: str) -> None:
    """Drop the series of an app and a path. Whoever holds one counts for nobody from now on."""
    for metric in _METRICS.values():
        metric.forget(app, path)


def exposition() -> Iterator[bytes]:
    """Everything, as Prometheus scrapes it, in pieces: a node of many routes has a hundred megabytes to tell.

    Others may count between two pieces. No series is divided, so that each agrees with itself.
    """
    yield _collectors()()
    piece: list[str] = []
    size = 0
    for text in itertools.chain.from_iterable(metric.texts() for metric in list(_METRICS.values())):
        piece.append(text)
        size += len(text)
        if size >= _PIECE:
            yield "".join(piece).encode()
            piece, size = [], 0
    yield "".join(piece).encode()


def _value(name: str, kind: Kind) -> Value:
    found = _METRICS.get(name)
    if found is None:
        found = _METRICS[name] = Value(name, kind)
    if not isinstance(found, Value) or found.kind != kind:
        raise TypeError(f"{name} is no {kind}")
    return found


@functools.cache
def _collectors() -> Callable[[], bytes]:
    from prometheus_client import GCCollector, PlatformCollector, ProcessCollector  # not before somebody asks
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return functools.partial(generate_latest, registry)


def _heading(name: str, kind: str, help_text: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


def _labels(labels: Labels) -> str:
    return f'fn_appname="{_escaped(labels[0])}",fn_path="{_escaped(labels[1])}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


for _metric in METRICS.values():  # what has not happened yet shows as zero, not as missing
    if _metric.kind == "histogram":
        histogram(_metric.name)
    else:
        _value(_metric.name, _metric.kind)
