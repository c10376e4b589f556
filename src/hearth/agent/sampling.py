"""Resource use of a call: samples of its container, thinned out for its record (agent specification 11)."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Sequence
from typing import Final

from hearth.drivers.base import Container, DriverError, StatsSample
from hearth.models.call import Stat
from hearth.telemetry.logs import get_logger

#: Points that a record keeps at most.
MAX_POINTS: Final = 240

_log = get_logger(__name__)


async def watch_stats(container: Container, sink: Callable[[StatsSample], None]) -> None:
    """Hand each sample of a container to ``sink``, until the container ends. Samples are a help, never a condition."""
    try:
        async for sample in container.stats():
            sink(sample)
    except DriverError as exc:
        _log.info("no more samples of a container", container_id=container.id, error=str(exc))


def thin_out(samples: Sequence[StatsSample], limit: int = MAX_POINTS) -> list[Stat]:
    """At most ``limit`` points: where there are more samples, each point is the mean of some that follow each other."""
    count = len(samples)
    if count <= limit:
        return [Stat(sample.timestamp, dict(sample.metrics)) for sample in samples]
    edges = [point * count // limit for point in range(limit + 1)]
    return [_mean(samples[first:last]) for first, last in itertools.pairwise(edges)]


def _mean(samples: Sequence[StatsSample]) -> Stat:
    count = len(samples)
    first = samples[0]
    later = sum([sample.timestamp - first.timestamp for sample in samples], start=dt.timedelta()) / count
    metrics = {name: sum([sample.metrics.get(name, 0) for sample in samples]) // count for name in first.metrics}
    return Stat(first.timestamp + later, metrics)
