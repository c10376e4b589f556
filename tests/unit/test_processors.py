"""Whether the processors have time left, by the kernel's account."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.support.clock import FakeClock

from hearth.host.cpu_load import Processors, wanted_s


def account(stat: Path, busy: int, idle: int) -> None:
    stat.write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4\n")


@pytest.mark.parametrize(
    ("processors", "busy", "idle", "found"),
    [(16, 95, 5, True), (16, 80, 20, False), (2, 80, 20, True), (2, 70, 30, False), (2, 0, 0, False)],
)
def test_processors_without_idle_time_are_busy(
    tmp_path: Path, processors: int, busy: int, idle: int, found: bool
) -> None:
    stat, clock = tmp_path / "stat", FakeClock()
    account(stat, 1000, 1000)
    watched = Processors(clock, stat, processors)
    account(stat, 1000 + busy, 1000 + idle)
    assert not watched.are_busy()  # not looked at again yet
    clock.advance(0.1)
    assert watched.are_busy() == found


def test_a_loop_that_has_no_time_left_is_busy_on_an_idle_machine(tmp_path: Path) -> None:
    stat, clock, wanted = tmp_path / "stat", FakeClock(), [0.0]
    account(stat, 0, 1000)
    watched = Processors(clock, stat, 16, lambda: wanted[0])
    for share, found in ((0.95, True), (0.5, False)):
        clock.advance(0.3)
        wanted[0] += 0.3 * share
        assert watched.are_busy() == found


def test_a_moment_of_calm_is_not_taken_for_time_left(tmp_path: Path) -> None:
    stat, clock, wanted = tmp_path / "stat", FakeClock(), [0.0]
    account(stat, 0, 1000)
    watched = Processors(clock, stat, 16, lambda: wanted[0])
    found = []
    for share in (0.95, 0.5, 0.5, 0.95, 0.5, 0.5, 0.5):
        clock.advance(0.1)
        wanted[0] += 0.1 * share
        found.append(watched.are_busy())
    assert found == [True] * 6 + [False]


def test_the_time_a_loop_stands_in_line_for_a_processor_is_time_it_wants(tmp_path: Path) -> None:
    schedstat = tmp_path / "schedstat"
    schedstat.write_text("7000000000 3000000000 12\n")
    begun = time.thread_time()
    assert 3.0 <= wanted_s(schedstat) - begun < 4.0
    schedstat.write_text("\n")
    assert 0.0 <= wanted_s(schedstat) - begun < 1.0


def test_without_an_account_they_are_never_busy(tmp_path: Path) -> None:
    clock = FakeClock()
    processors = Processors(clock, tmp_path / "none")
    clock.advance(1)
    assert not processors.are_busy()
