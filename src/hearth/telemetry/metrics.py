"""The metrics of one node: fixed names, one fixed set of labels (operations specification 2).

Every metric has the labels ``fn_appname`` and ``fn_path``, empty where they do not apply. Names of counters carry no
``_total``: dashboards of Fn select them as they are.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from hearth.telemetry.names import METRICS, TIME_BUCKETS, Kind
from hearth.telemetry.series import NO_LABELS, Histogram, Labels, Value

if TYPE_CHECKING:  # the library takes 50 ms and 10 MiB: it is loaded at the first scrape
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Characters of the exposition that are written in one go: a millisecond's work or less.
PIECE: Final = 64 * 1024


class Metrics:
    """The metrics of one node. Implements ``Collector`` of the Prometheus client library."""

    def __init__(self) -> None:
        self._families: dict[str, Value | Histogram] = {}
        self._refresh: list[Callable[[], None]] = []
        for metric in METRICS.values():
            getattr(self, metric.kind)(metric.name)

    def counter(self, name: str) -> Value:
        """Return the counter of this name."""
        return self._value(name, "counter")

    def gauge(self, name: str) -> Value:
        """Return the gauge of this name."""
        return self._value(name, "gauge")

    def histogram(self, name: str, help_text: str = "") -> Histogram:
        """Return the histogram of this name, with the buckets of its unit."""
        found = self._families.get(name)
        if found is None:
            bounds = METRICS[name].buckets if name in METRICS else TIME_BUCKETS
            found = self._families[name] = Histogram(name, bounds, help_text)
        if not isinstance(found, Histogram):
            raise TypeError(f"{name} is not a histogram")
        return found

    @functools.cached_property
    def registry(self) -> CollectorRegistry:
        """The other collectors of the node: those for the process, and what extensions register."""
        from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
        from prometheus_client.registry import CollectorRegistry

        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        return registry

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before each scrape: for numbers that are kept elsewhere."""
        self._refresh.append(refresh)

    def labels(self) -> set[Labels]:
        """Return the apps and paths of all series."""
        return {pair for family in self._families.values() for pair in family.labels() if pair != NO_LABELS}

    def forget(self, app: str, path: str) -> None:
        """Remove the series of an app and a path."""
        for family in self._families.values():
            family.forget(app, path)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics in the library's form."""
        for family in self._fresh():
            yield family.collect()

    def exposition(self) -> Iterator[bytes]:
        """Yield the text that Prometheus scrapes, in pieces: a node of many routes has a hundred megabytes of it.

        Others may count between two pieces. A piece holds whole series, so that each agrees with itself.
        """
        from prometheus_client.exposition import generate_latest

        yield generate_latest(self.registry)
        piece: list[str] = []
        size = 0
        for text in itertools.chain.from_iterable(map(_texts, self._fresh())):
            piece.append(text)
            size += len(text)
            if size >= PIECE:
                yield "".join(piece).encode()
                piece, size = [], 0
        yield "".join(piece).encode()

    def _fresh(self) -> list[Value | Histogram]:
        for refresh in self._refresh:
            refresh()
        return list(self._families.values())

    def _value(self, name: str, kind: Kind) -> Value:
        found = self._families.get(name)
        if found is None:
            found = self._families[name] = Value(name, kind)
        if not isinstance(found, Value) or found.kind != kind:
            raise TypeError(f"{name} is not a {kind}")
        return found


def _texts(family: Value | Histogram) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    yield from family.texts()
