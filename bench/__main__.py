"""One run of all that is measured: ``make bench`` (quick) and ``make bench-full``.

Prints a table of ratios; ``--json`` and ``--plots`` keep the figures. Rounds of what is compared are interleaved, so
that a busy machine is busy for all. ``BENCH_REFERENCE_URL``, the URL of a route of another platform with the same
function, puts that beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

from tests.support.node import MULTI

from bench.bodies import bodies
from bench.cold import cold
from bench.figures import Figures
from bench.images import images
from bench.limits import Direct
from bench.local_fleet import local_fleet
from bench.node import api, start
from bench.release import Release
from bench.scale import scale
from bench.shared import shared
from bench.warm import warm

PARTS = ("direct", "warm", "shared", "bodies", "cold", "images", "api", "start", "local-fleet", "scale")
#: Only with ``--full``, or when asked for.
SLOW = ("local-fleet", "scale")
QUICK = {"connections": (1, 8, 32), "rounds": 3, "seconds": 3.0}
FULL = {"connections": (1, 8, 32, 128, 512), "rounds": 5, "seconds": 5.0}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all loads, more rounds; about an hour")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given again")
    parser.add_argument("--against", type=Release, help="also measure the warm calls of this commit of Hearth")
    parser.add_argument("--most", type=int, default=10_000_000, help="the largest size of the scale curves")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--plots", type=Path, help="draw them into this folder")
    given = parser.parse_args()
    size = FULL if given.full else QUICK
    parts = given.only or [part for part in PARTS if given.full or part not in SLOW]
    figures = Figures()
    if given.against:
        given.against.install()
    for part in parts:
        _run(part, figures, {**size, "most": given.most}, given.against)
    print(figures.table())
    if given.json:
        given.json.write_text(json.dumps(figures.as_json(), indent=1))
    if given.plots:
        from bench.plots import draw  # takes a second to import

        draw(figures, given.plots)


def _run(part: str, figures: Figures, size: dict[str, object], release: Release | None) -> None:
    rounds, seconds = int(str(size["rounds"])), float(str(size["seconds"]))
    drivers = ["process", *(["docker"] if _has_docker() else [])]
    if part == "direct":
        _direct(figures, rounds)
    elif part == "warm":
        warm(
            figures,
            connections=size["connections"],  # type: ignore[arg-type]  # a tuple of numbers
            rounds=rounds,
            seconds=seconds,
            drivers=drivers,
            reference=os.environ.get("BENCH_REFERENCE_URL", ""),
            release=release,
        )
    elif part == "shared":
        shared(figures, rounds=rounds, seconds=seconds)
    elif part == "bodies":
        bodies(figures, rounds=rounds)
    elif part == "cold":
        for driver in drivers:
            cold(figures, driver, rounds=rounds * 3)
    elif part == "images":
        images(figures, rounds=rounds * 5)
    elif part == "api":
        api(figures, rounds=rounds, seconds=seconds)
    elif part == "start":
        start(figures, rounds=rounds)
    elif part == "local-fleet":
        local_fleet(figures, rounds=rounds, seconds=seconds)
    else:
        scale(figures, seconds=seconds, rounds=rounds, most=int(str(size["most"])))


def _direct(figures: Figures, rounds: int) -> None:
    import time

    calls = {name: Direct(str(MULTI), name) for name in ("http", "json")}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            for _ in range(500):
                call()
            figures.add("direct", f"function {name}", "ms", (time.perf_counter() - begun) * 1000 / 500)
    for call in calls.values():
        call.close()


def _has_docker() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
