"""Spans: how long each step takes, and, where a collector is set, which request caused it (operations specification 3).

``with span("ds_get_app"): ...``. The duration of every finished span goes to ``fn_span_<name>_duration_seconds``.
"""

from __future__ import annotations

import time
from types import TracebackType

from hearth.telemetry import metrics


class span:
    """One step. Enter and leave it in one task.

    Args:
        name: Of the specification's list; names the metric, too.
        app: The app it works for, if it does for one.
        path: The route it works for.
    """

    __slots__ = ("_app", "_begun", "_name", "_path")

    def __init__(self, name: str, app: str = "", path: str = "") -> None:
        self._name = name
        self._app = app
        self._path = path
        self._begun = 0.0

    def __enter__(self) -> span:
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _histogram(self._name).observe(time.perf_counter() - self._begun, self._app, self._path)


def _histogram(name: str) -> metrics.Histogram:
    return metrics.histogram(f"fn_span_{name}_duration_seconds", help_text=f"Span {name} duration, by span name")
