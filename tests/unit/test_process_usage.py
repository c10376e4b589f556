"""What the meter of a container of processes sees."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from tests.support.clock import FakeClock

from hearth.drivers.process.usage import Meter


class Members:
    """A control group as the kernel tells of it, without the kernel."""

    def __init__(self, *pids: int) -> None:
        self.members = list(pids)
        self.asked = 0

    def pids(self) -> list[int]:
        return self.members

    def memory_bytes(self) -> int:
        self.asked += 1
        return len(self.members) << 20


@pytest.fixture
def still() -> Iterator[list[int]]:
    """Two processes of which nothing changes, as they are stopped."""
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


def test_a_process_that_joins_counts_although_nothing_changed_in_the_others(still: list[int]) -> None:
    first, second = still
    group = Members(first)
    meter = Meter(first, group, 128, FakeClock())
    assert meter.sample().metrics["mem_usage"] == 1 << 20
    group.members.append(second)
    assert meter.sample().metrics["mem_usage"] == 2 << 20


def test_a_group_in_which_nothing_changes_is_not_measured_again(still: list[int]) -> None:
    group = Members(*still)
    meter = Meter(still[0], group, 128, FakeClock())
    for _ in range(3):
        assert meter.sample().metrics["mem_usage"] == 2 << 20
    assert group.asked == 1
