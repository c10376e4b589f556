"""A storm of good and bad calls: no answer is anybody else's, and afterwards everything is back.

``HEARTH_STORM_CALLS`` sets the number of calls; ``make storm`` runs 10,000.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node
from tests.support.storm import Storm, containers, descriptors
from tests.support.waiting import until

CALLS = int(os.environ.get("HEARTH_STORM_CALLS", "480"))
TOTAL_MIB = 2000


@pytest.mark.parametrize("driver", ["process", "docker"])
def test_a_storm_mixes_no_answers_and_leaves_nothing(
    driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if driver == "docker":
        request.getfixturevalue("docker")
        image, calls, at_once = python_image(MULTI), CALLS // 4, 16
    else:
        image, calls, at_once = build_multi(tmp_path, tmp_path / "source"), CALLS, 64
    with running_node(driver, tmp_path, image, FN_MAX_TOTAL_MEMORY=str(TOTAL_MIB << 20)) as node:
        warm = node.route("warm", "http", idle_timeout=1, memory=64)
        node.call(warm, echo="x")
        assert until(lambda: not containers(node))
        before = descriptors(node)
        outcome = Storm(node, calls=calls, at_once=at_once).run()
        print(f"{driver}: {dict(sorted(outcome.seen.items()))}")
        assert outcome.wrong == []
        assert outcome.seen["500"] == 0, (tmp_path / "server.log").read_text()[-4000:]  # each failure has its own name
        assert outcome.seen["200"] > calls // 10  # on a busy machine many wait in vain for a container
        _all_is_back(node, before)


def _all_is_back(node: RunningNode, descriptors_before: Counter[str]) -> None:
    def stats() -> tuple[int, int]:
        told = node.http.get("/stats").json()
        return told["Queue"], told["Running"]

    assert until(lambda: stats() == (0, 0)), stats()
    assert until(lambda: not containers(node)), containers(node)
    # A function that needs the whole node gets it: not one MiB was lost.
    whole = node.route("whole", "http", memory=TOTAL_MIB, idle_timeout=1)
    assert node.call(whole, echo="all of it").text == "all of it"
    assert until(lambda: not containers(node))
    assert until(lambda: descriptors(node) <= descriptors_before), descriptors(node) - descriptors_before
