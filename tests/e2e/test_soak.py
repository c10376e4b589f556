"""Load for a while: memory and descriptors stay flat.

``HEARTH_SOAK_ROUNDS`` sets how long; ``make soak`` takes about an hour.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from tests.support.node import build_multi, running_node
from tests.support.storm import Storm, containers, descriptors, resident_mib
from tests.support.waiting import until

ROUNDS = int(os.environ.get("HEARTH_SOAK_ROUNDS", "4"))
#: Rounds after which caches and pools have their size.
WARM = max(2, ROUNDS // 4)
#: More than a leak of one kilobyte for each call would take.
SLACK_MIB = 24 + ROUNDS // 10


def test_memory_and_descriptors_stay_flat_under_load(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node:
        memory, opened = [], []
        for number in range(ROUNDS):
            outcome = Storm(node, calls=800, at_once=16, bad=0.02, seed=number).run()
            assert outcome.wrong == []
            assert until(lambda: not containers(node)), containers(node)
            memory.append(resident_mib(node))
            opened.append(descriptors(node))
        print(f"memory of the node after each round, MiB: {memory}")
        assert until(lambda: descriptors(node) <= opened[WARM - 1]), descriptors(node) - opened[WARM - 1]
        assert statistics.fmean(memory[-2:]) < memory[WARM - 1] + SLACK_MIB
