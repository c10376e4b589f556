"""Figures of a run: samples of several rounds, shown as ratios."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(slots=True)
class Figure:
    """One thing that was measured in several rounds.

    Attributes:
        group: The experiment.
        subject: What was measured.
        at: The load, as a number, where an experiment has several.
        unit: Of the samples.
        samples: One per round; round N of one figure ran beside round N of the others of its experiment.
        against: The subject whose samples of the same load they are divided by; empty for none.
    """

    group: str
    subject: str
    at: int
    unit: str
    samples: list[float] = dataclasses.field(default_factory=list)
    against: str = ""

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples)


class Figures:
    """All figures of a run, in order."""

    def __init__(self) -> None:
        self.all: list[Figure] = []

    def add(self, group: str, subject: str, unit: str, sample: float, *, at: int = 0, against: str = "") -> None:
        """Take one round's sample."""
        found = self.find(group, subject, unit, at)
        if found is None:
            found = Figure(group, subject, at, unit, against=against)
            self.all.append(found)
        found.samples.append(sample)

    def find(self, group: str, subject: str, unit: str, at: int) -> Figure | None:
        """The figure, if there is one."""
        wanted = (group, subject, unit, at)
        return next((one for one in self.all if (one.group, one.subject, one.unit, one.at) == wanted), None)

    def ratios(self, figure: Figure) -> list[float]:
        """Each sample over that of the same round of what it is measured against."""
        base = self.find(figure.group, figure.against, figure.unit, figure.at)
        if base is None:
            return []
        return [one / other for one, other in zip(figure.samples, base.samples, strict=False) if other]

    def table(self) -> str:
        """All of it, as a table in Markdown."""
        lines = ["| what | load | median | ratio | of | spread |", "|---|---|---|---|---|---|"]
        for figure in self.all:
            ratios = self.ratios(figure)
            ratio = f"{statistics.median(ratios):.2f} | {figure.against} | {_spread(ratios)}" if ratios else " | | "
            at = f"{figure.at:,}" if figure.at else ""
            name = f"{figure.group}: {figure.subject}"
            lines.append(f"| {name} | {at} | {_shown(figure.median)} {figure.unit} | {ratio} |")
        return "\n".join(lines)

    def as_json(self) -> list[dict[str, object]]:
        """All of it, for machines."""
        return [dataclasses.asdict(one) | {"ratios": self.ratios(one)} for one in self.all]

    @classmethod
    def of_json(cls, rows: Iterable[dict[str, object]]) -> Figures:
        """What :meth:`as_json` wrote."""
        figures = cls()
        names = [field.name for field in dataclasses.fields(Figure)]
        figures.all = [Figure(**{name: row[name] for name in names}) for row in rows]  # type: ignore[arg-type]
        return figures


def _spread(samples: Sequence[float]) -> str:
    return f"{min(samples):.2f} to {max(samples):.2f}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
