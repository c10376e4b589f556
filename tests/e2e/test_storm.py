"""Storms of good and bad calls: no answer is anybody else's, nobody waits for the loop, and nothing is left behind.

``HEARTH_STORM_CALLS`` sets the number of calls, ``HEARTH_STORM_FORMATS`` the formats; ``make storm`` runs 10,000.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import hostile
from tests.support.docker_images import python_image
from tests.support.jails import ordinary_user
from tests.support.metered_start import Report
from tests.support.node import MULTI, RunningNode, build_bundle, build_multi, running_node
from tests.support.remains import control_groups, files, mounts, processes_of
from tests.support.storm import Storm, containers, descriptors
from tests.support.turns import limit_s
from tests.support.waiting import until

CALLS = int(os.environ.get("HEARTH_STORM_CALLS", "480"))
FORMATS = tuple(os.environ.get("HEARTH_STORM_FORMATS", " ".join(hostile.FORMATS)).split())
CROWD = MULTI.with_name("crowd.py")
TOTAL_MIB = 2000
#: A call of a fn waits for a container for these times and its own: for less than its client does.
WAITS = {"FN_HOT_PULL_TIMEOUT_MSECS": "5000", "FN_HOT_START_TIMEOUT_MSECS": "15000"}
METERED = Path(__file__).parents[1] / "support" / "metered_start.py"
#: Memory that a storm may add to what the same storm took before.
SLACK_MIB = 16
#: Objects of Hearth per call that only the garbage collector would free: a container that is kept would be 15.
GARBAGE = 0.2


class Stormy:
    """A node in a storm, and all by which it is known what it leaves behind.

    Attributes:
        crowd: The image of a function that runs several calls at once.
        uids: The users of the machine that its functions are; the node itself is one of them if it is not root.
    """

    def __init__(self, node: RunningNode, crowd: str, report: Path, uids: range) -> None:
        self.node = node
        self.crowd = crowd
        self.uids = uids
        self._report = report

    def measured(self) -> Report:
        """Return what was measured since the last time."""
        self._report.unlink(missing_ok=True)
        self.node.process.send_signal(signal.SIGUSR1)
        assert until(self._report.exists)
        return Report.read(self._report)

    def strangers(self) -> list[int]:
        """Return the processes of its functions."""
        return [pid for pid in processes_of(self.uids) if pid != self.node.process.pid]


@contextlib.contextmanager
def stormy_node(variant: str, folder: Path) -> Iterator[Stormy]:
    """Run a node with the collector off; as root, as an ordinary user of its own, or with Docker."""
    driver = "docker" if variant == "docker" else "process"
    if driver == "docker":
        image, crowd = python_image(MULTI), python_image(CROWD)
    else:
        image, crowd = build_multi(folder, folder / "source"), build_bundle(folder, folder / "crowd", CROWD)
    (folder / "tmp").mkdir()
    (folder / "report").mkdir()
    report = folder / "report" / "report.json"
    first = 2_100_000_000 + os.getpid() % 1000 * 64
    uids = range(first, first + 1 if variant == "user" else first + 64)
    environment = {
        "FN_MAX_TOTAL_MEMORY": str(TOTAL_MIB << 20),
        "TMPDIR": str(folder / "tmp"),
        **WAITS,
    }
    with contextlib.ExitStack() as stack:
        command: list[str | Path] = [sys.executable, METERED, report]
        if variant == "user":
            command = [*stack.enter_context(ordinary_user(folder, first)), *command]
        elif os.getuid() == 0:
            environment["FN_FUNCTION_UIDS"] = f"{uids[0]}-{uids[-1]}"
        node = stack.enter_context(running_node(driver, folder, image, command, **environment))
        yield Stormy(node, crowd, report, uids)


@pytest.mark.parametrize("variant", ["root", "user", "docker"])
def test_a_storm_mixes_no_answers_and_leaves_nothing(
    variant: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if variant == "docker":
        request.getfixturevalue("docker")
    elif os.getuid() != 0:
        pytest.skip("only root can run a node as root, and as another user")
    calls, at_once = (CALLS // 12, 16) if variant == "docker" else (CALLS // 2, 64)
    mounted = mounts(tmp_path)
    with stormy_node(variant, tmp_path) as stormy:
        node = stormy.node
        rage(stormy, calls, at_once)  # until caches, pools and buffers have their size
        memory, opened, known = stormy.measured().resident_mib, descriptors(node), files(tmp_path)
        outcome = rage(stormy, calls, at_once)
        measured = stormy.measured()
        added = measured.resident_mib - memory
        print(f"{variant}: {dict(sorted(outcome.items()))}")
        print(f"{memory} MiB + {added}; longest turn {measured.longest_s * 1000:.1f} ms; garbage {measured.garbage}")
        assert measured.longest_s <= limit_s(), "\n".join(measured.slow)
        assert added <= SLACK_MIB
        ours = [count for name, count in measured.garbage.items() if name.startswith("hearth.")]
        assert sum(ours) <= GARBAGE * calls, measured.garbage
        assert until(lambda: descriptors(node) <= opened), descriptors(node) - opened
        assert files(tmp_path) <= known
        assert mounts(tmp_path, node.process.pid) - mounted == set() or variant == "user"
        name = (node.data / "node-id").read_text().strip()
        assert files(tmp_path / "tmp") <= {f"hearth-node-{name}.lock"}
        assert control_groups(name) == set()
    assert stormy.strangers() == []
    assert control_groups(name) == set()
    assert mounts(tmp_path) - mounted == set()
    if variant == "docker":
        command = ["docker", "ps", "-aq", "--filter", f"label=hearth.node={name}"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b""


def rage(stormy: Stormy, calls: int, at_once: int) -> Counter[str]:
    """Have one storm; afterwards all that the node had for its calls is back."""
    node = stormy.node
    outcome = Storm(node, calls=calls, at_once=at_once, formats=FORMATS, crowd=stormy.crowd, bad=0.5).run()
    assert outcome.wrong == []
    assert outcome.seen["500"] == 0, (node.data / "server.log").read_text()[-4000:]  # each failure has its own name
    assert outcome.seen["200"]  # not how many: on a busy machine many wait in vain for a container

    def stats() -> tuple[int, int]:
        told = node.http.get("/stats").json()
        return told["Queue"], told["Running"]

    assert until(lambda: stats() == (0, 0)), stats()
    assert until(lambda: not containers(node)), containers(node)
    # A function that needs the whole node gets it: not one MiB was lost.
    whole = node.route("whole", "http", memory=TOTAL_MIB, idle_timeout=1)
    assert node.call(whole, echo="all of it").text == "all of it"
    assert until(lambda: not containers(node))
    if node.driver == "process":
        assert until(lambda: not stormy.strangers()), stormy.strangers()
    return outcome.seen
