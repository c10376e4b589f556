"""``make bench-check AGAINST=REF``: fail if warm calls became slower since another commit.

Both nodes run side by side and are loaded in turn, so that a busy machine is busy for both. A try fails if the rate
falls below, or the processor time rises above, what is allowed; the check fails if three tries in a row do.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from typing import Final

from bench.figures import Figures
from bench.release import Release
from bench.warm import warm

_TRIES: Final = 3
#: The least ratio of rates, and the largest of processor times, to the other commit.
_RATE: Final = 0.9
_CPU: Final = 1 / _RATE
_NODE: Final = "process http"


def main() -> None:
    """Compare; end with status 1 if this state is slower."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("against", help="what to compare with: a commit, tag or branch")
    release = Release(parser.parse_args().against)
    release.install()
    slower: list[str] = []
    for _ in range(_TRIES):
        figures = Figures()
        warm(
            figures, connections=(1, 8, 32), rounds=3, seconds=3, drivers=["process"], formats=["http"], release=release
        )
        print(figures.table(), flush=True)
        slower = list(_slower(figures, release.name))
        if not slower:
            return
    raise SystemExit("bench: slower than " + "\n".join([release.commit, *slower]))


def _slower(figures: Figures, other: str) -> Iterator[str]:
    for figure in figures.all:
        base = figures.find(figure.group, other, figure.unit, figure.at)
        if figure.subject != _NODE or base is None:
            continue
        ratio = statistics.median(one / two for one, two in zip(figure.samples, base.samples, strict=True) if two)
        if (figure.unit == "requests/s" and ratio < _RATE) or (figure.unit == "us CPU each" and ratio > _CPU):
            yield f"{figure.unit} over {figure.at} connections: x{ratio:.2f}"


if __name__ == "__main__":
    main()
