"""Metrics of the node: fixed names, one fixed set of labels (operations specification 2).

Every metric has the labels ``fn_appname`` and ``fn_path``, empty where they do not apply. Names of counters carry no
``_total``: dashboards of Fn select them as they are. That, and the cost of one observation on the hot path, is why the
samples are kept here; what the process itself uses is told by the Prometheus client library.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds.
TIME_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: The buckets of times, and powers of four of a kibibyte up to 16 GiB: names and values stay Fn's.
BYTE_BUCKETS: Final = (*TIME_BUCKETS, *(float(4**power * 1024) for power in range(13)))

Labels = tuple[str, str]
_NO_LABELS: Final[Labels] = ("", "")


class Value:
    """A counter or a gauge."""

    __slots__ = ("_kind", "_name", "_values")

    def __init__(self, name: str, kind: str) -> None:
        self._name = name
        self._kind = kind
        self._values: dict[Labels, float] = {_NO_LABELS: 0.0}

    def add(self, by: float = 1.0, app: str = "", path: str = "") -> None:
        """Count, or move the gauge."""
        labels = (app, path)
        self._values[labels] = self._values.get(labels, 0.0) + by

    def set(self, value: float, app: str = "", path: str = "") -> None:
        """Put the gauge somewhere."""
        self._values[app, path] = value

    def get(self, app: str = "", path: str = "") -> float:
        """What it says."""
        return self._values.get((app, path), 0.0)

    def lines(self) -> Iterator[str]:
        """The text exposition."""
        yield from _heading(self._name, self._kind, f"Metric {self._name}")
        for labels, value in self._values.items():
            yield f"{self._name}{{{_labels(labels)}}} {_number(value)}"


class Histogram:
    """How values are spread over buckets."""

    __slots__ = ("_bounds", "_help", "_name", "_series")

    def __init__(self, name: str, bounds: Sequence[float] = TIME_BUCKETS, help_text: str = "") -> None:
        self._name = name
        self._bounds = bounds
        self._help = help_text or f"Metric {name}"
        self._series: dict[Labels, tuple[list[int], list[float]]] = {}

    def observe(self, value: float, app: str = "", path: str = "") -> None:
        """One value."""
        series = self._series.get((app, path))
        if series is None:
            series = self._series[app, path] = ([0] * (len(self._bounds) + 1), [0.0])
        series[0][bisect.bisect_left(self._bounds, value)] += 1
        series[1][0] += value

    def count(self, app: str = "", path: str = "") -> int:
        """How many values there were."""
        series = self._series.get((app, path))
        return sum(series[0]) if series is not None else 0

    def lines(self) -> Iterator[str]:
        """The text exposition."""
        yield from _heading(self._name, "histogram", self._help)
        for labels, (counts, total) in self._series.items():
            text, so_far = _labels(labels), 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                so_far += count
                yield f'{self._name}_bucket{{{text},le="{_number(bound)}"}} {so_far}'
            yield f"{self._name}_sum{{{text}}} {_number(total[0])}"
            yield f"{self._name}_count{{{text}}} {so_far}"


_METRICS: Final[dict[str, Value | Histogram]] = {}


def counter(name: str) -> Value:
    """The counter of this name."""
    return _value(name, "counter")


def gauge(name: str) -> Value:
    """The gauge of this name."""
    return _value(name, "gauge")


def histogram(name: str, bounds: Sequence[float] = TIME_BUCKETS, help_text: str = "") -> Histogram:
    """The histogram of this name."""
    found = _METRICS.get(name)
    if found is None:
        found = _METRICS[name] = Histogram(name, bounds, help_text)
    if not isinstance(found, Histogram):
        raise TypeError(f"{name} is no histogram")
    return found


def exposition() -> bytes:
    """Everything, as Prometheus scrapes it."""
    own = "\n".join([line for metric in _METRICS.values() for line in metric.lines()])
    return generate_latest(_process) + own.encode() + b"\n"


def _value(name: str, kind: str) -> Value:
    found = _METRICS.get(name)
    if found is None:
        found = _METRICS[name] = Value(name, kind)
    if not isinstance(found, Value):
        raise TypeError(f"{name} is a histogram")
    return found


def _of_process() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _heading(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"


def _labels(labels: Labels) -> str:
    return f'fn_appname="{_escaped(labels[0])}",fn_path="{_escaped(labels[1])}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


_process: Final = _of_process()
