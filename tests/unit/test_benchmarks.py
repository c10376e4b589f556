"""Benchmarks run by hand: that they still fit what they use shows here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__", "plots"})
)
def test_a_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"bench.{name}")
