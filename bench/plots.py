"""Draws the figures of a run."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from bench.figures import Figure, Figures

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "hearth"  # the same figures give the same file

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws
from matplotlib.axes import Axes  # noqa: E402


def draw(figures: Figures, folder: Path) -> None:
    """A file for each kind of curve that was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {one.group for one in figures.all}
    if "warm" in groups:
        _draw_warm(figures, folder)
    if any(group.startswith("with ") for group in groups):
        _draw_scale(figures, folder)


def _draw_scale(figures: Figures, folder: Path) -> None:
    """What a warm call takes and costs over how much there is of something, as ratios."""
    chart, both = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, unit, title in zip(both, ("ms p50", "us CPU each"), ("median latency", "CPU of the node"), strict=True):
        for group in dict.fromkeys(one.group for one in figures.all if one.group.startswith("with ")):
            points = [one for one in figures.all if (one.group, one.unit) == (group, unit) and figures.ratios(one)]
            _line(axes, [one for one in points if one.subject != one.against], figures, group.removeprefix("with "))
        axes.set(title=f"{title} / that of a node with one of all", xlabel="how many", xscale="log", ylim=(0, None))
        axes.legend()
    chart.savefig(folder / "scale.svg", metadata={"Date": None})


def _draw_warm(figures: Figures, folder: Path) -> None:
    """Throughput over connections, as a share of what the proxy reaches, and the processor time of a call."""
    chart, (rates, costs) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in dict.fromkeys(one.subject for one in figures.all if one.group == "warm"):
        points = [one for one in figures.all if one.group == "warm" and one.subject == name]
        _line(rates, [one for one in points if one.unit == "requests/s"], figures)
        _line(costs, [one for one in points if one.unit == "us CPU each"], None)
    for axes, title in ((rates, "requests per second / those of the proxy"), (costs, "CPU of the server, us per call")):
        axes.set(title=title, xlabel="connections", xscale="log", ylim=(0, None))
        axes.legend()
    chart.savefig(folder / "warm.svg", metadata={"Date": None})


def _line(axes: Axes, points: list[Figure], figures: Figures | None, label: str = "") -> None:
    if not points:
        return
    values = [sorted(figures.ratios(one))[len(one.samples) // 2] if figures else one.median for one in points]
    axes.plot([one.at for one in points], values, marker="o", label=label or points[0].subject)
