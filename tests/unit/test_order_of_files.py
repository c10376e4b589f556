"""The order in which a parallel run starts the test files, and which worker gets which."""

from __future__ import annotations

import types
from typing import Any

import pytest
from tests.support import durations
from tests.support.scheduling import FileScheduling


def item(nodeid: str) -> Any:
    return types.SimpleNamespace(nodeid=nodeid)


def test_long_files_start_first_and_keep_the_order_of_their_tests() -> None:
    items = [item(name) for name in ("short::b", "long::z", "unknown::a", "short::a", "long::a")]
    found = [one.nodeid for one in durations.ordered(items, {"short": 1.0, "long": 60.0})]
    assert found == ["unknown::a", "long::z", "long::a", "short::b", "short::a"]


def test_files_that_take_equally_long_are_not_mixed() -> None:
    items = [item(name) for name in ("b::1", "a::1", "b::2", "a::2")]
    assert [one.nodeid for one in durations.ordered(items, {"a": 1.0, "b": 1.0})] == ["a::1", "a::2", "b::1", "b::2"]


class Told:
    """A worker that notes what it is given, and runs nothing."""

    def __init__(self, *collected: str) -> None:
        self.collected, self.given, self.shutting_down = collected, list[str](), False
        self.numbers: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += [self.collected[number] for number in indices]
        self.numbers += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(*workers: Any) -> FileScheduling:
    """A run that has begun."""
    found = FileScheduling(len(workers), types.SimpleNamespace(testscollected=0))  # type: ignore[arg-type]
    for worker in workers:
        found.add_node(worker)
    for worker in workers:
        assert not found.collection_is_completed
        found.add_node_collection(worker, worker.collected)
    found.schedule()
    return found


def test_who_knows_all_begins_with_what_others_do_not_know() -> None:
    every, some = Told("long::a", "long::b", "next::a", "rare::a", "rare::b"), Told("long::a", "long::b", "next::a")
    run = scheduled(every, some)
    assert (every.given, some.given) == (["rare::a", "rare::b"], ["long::a", "long::b"])
    run.mark_test_complete(every, 3)
    assert every.given[2:] == ["next::a"]
    assert some.shutting_down is False
    run.mark_test_complete(some, 0)
    assert some.shutting_down, "nothing is left, so its last test is run"
    assert not run.tests_finished
    run.mark_test_complete(every, 4)
    assert run.tests_finished


def test_what_a_worker_leaves_goes_to_one_that_knows_it() -> None:
    every, some = Told("b::a", "a::a", "a::b", "a::c"), Told("b::a")
    run = scheduled(every, some)
    assert (every.given, some.given) == (["a::a", "a::b", "a::c"], ["b::a"])
    assert run.remove_node(every) == "a::a"
    assert some.given == ["b::a"]
    assert run.has_pending
    assert not run.tests_finished
    other = Told(*every.collected)
    run.add_node(other)
    run.add_node_collection(other, other.collected)
    run.schedule()
    assert other.given == ["a::b", "a::c"]


def test_workers_that_know_different_tests_end_the_run() -> None:
    with pytest.raises(RuntimeError, match="b::x"):
        scheduled(Told("a::a", "b::a"), Told("b::x"))


def test_tests_of_one_name_are_run_once_each() -> None:
    worker = Told("a::one", "a::one", "a::one", "b::two")
    run = scheduled(worker)
    assert worker.numbers == [0, 1, 2]
    run.mark_test_complete(worker, 0)
    assert not run.tests_finished
    assert run.remove_node(worker) == "a::one"
    other = Told(*worker.collected)
    run.add_node(other)
    run.add_node_collection(other, other.collected)
    run.schedule()
    assert other.numbers == [2, 3]
