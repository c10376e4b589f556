"""The report of the mutants: one section for each module; those that were not played now keep theirs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.mutants.explained import EXPLAINED

REPORT: Final = Path(__file__).with_name("report.md")
HEAD: Final = """# Mutants

Written by `make mutants`. A mutant is the code with one change; it is caught if a test fails. *Guards* were chosen by
hand (`guards.py`), the others are every change that `sites.py` knows, in each function that the tests call. A survivor
is a change that no test notices: its reason is in `explained.py`, or it is open.
"""


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    module: str
    function: str
    text: str
    breaks: str
    outcome: str


def write(results: list[Result]) -> None:
    """Write the report."""
    sections = _sections()
    by_module: defaultdict[str, list[Result]] = defaultdict(list)
    for one in results:
        by_module[one.module].append(one)
    sections |= {module: _section(module, some) for module, some in by_module.items()}
    REPORT.write_text("\n".join([HEAD, *[sections[module] for module in sorted(sections)]]))


def _sections() -> dict[str, str]:
    """Return what the report says of each module now."""
    if not REPORT.exists():
        return {}
    _, *parts = REPORT.read_text().split("\n## ")
    return {part.partition(":")[0]: "## " + part.rstrip("\n") + "\n" for part in parts}


def _section(module: str, results: list[Result]) -> str:
    played = [one for one in results if one.outcome in ("caught", "survived")]
    changes = [one for one in played if not one.breaks]
    guards = [one for one in results if one.breaks]
    told = [f"{_caught(some)} {kind}" for some, kind in ((changes, "changes"), (guards, "guards")) if some]
    lines = [f"## {module}: {', '.join(told)} caught\n"]
    lines += [f"* guard, {one.outcome}: {one.breaks}" for one in guards if one.outcome != "caught"]
    for one in changes:
        if one.outcome == "survived":
            reason = EXPLAINED.get((module, one.function, one.text), "open")
            lines.append(f"* `{one.function}`: `{one.text}` ({reason})")
    return "\n".join(lines).rstrip("\n") + "\n"


def _caught(results: list[Result]) -> str:
    return f"{sum(one.outcome == 'caught' for one in results)} of {len(results)}"
