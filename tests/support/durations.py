"""A pytest plugin: start long test files first, so that all workers of a parallel run end at about the same time.

``durations.json`` keeps the seconds that each file took in its last measured run; ``--store-durations`` measures again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

STORED = Path(__file__).parent.parent / "durations.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that measures."""
    parser.addoption("--store-durations", action="store_true", help=f"write the seconds of each file to {STORED.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Measure in the process that sees the reports of all workers."""
    if config.getoption("--store-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Measurement(config.rootpath), "hearth-durations")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files into their order; the tests of a file stay in theirs."""
    if hasattr(config, "workerinput"):
        items[:] = ordered(items, load())


def load() -> dict[str, float]:
    """Return the stored seconds of each file."""
    return json.loads(STORED.read_text()) if STORED.exists() else {}


def ordered(items: list[pytest.Item], seconds: dict[str, float]) -> list[pytest.Item]:
    """Return the tests, those of the longest file first; a file that was never measured may be long."""

    def rank(item: pytest.Item) -> tuple[float, str]:
        file = item.nodeid.partition("::")[0]
        return -seconds.get(file, float("inf")), file

    return sorted(items, key=rank)


class Measurement:
    """The seconds of each file in this run, with the set-up and clean-up of its tests."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test."""
        self._seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Store what was measured; keep the rest for files that still exist."""
        known = {file: spent for file, spent in (load() | self._seconds).items() if (self._root / file).exists()}
        rounded = {file: round(spent, 1) for file, spent in sorted(known.items())}
        STORED.write_text(json.dumps(rounded, indent=1) + "\n")
