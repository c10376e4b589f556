"""A pytest plugin: how a parallel run gives the test files to its workers.

Every worker of pytest-xdist collects every test, which for ten thousand of them takes longer than most files. Here only
the first workers do, as many as there are usually processors. The others know the tests that mostly wait: those of
whole nodes, of which there are few. The first ones begin with what only they know.

After a worker has crashed the run goes on. The schedulers of pytest-xdist 3.8 queue the work of a crashed worker again
as a whole, with the files that are finished and with the test that crashed it. Finished files hold up the workers that
get them, so that the run never ends (pytest-xdist issues 1323 and 1378), and the crash repeats until no worker may be
replaced (pull request 1371).
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from xdist.workermanage import WorkerController, parse_tx_spec_config

#: The workers that collect every test.
_WITH_ALL: Final = 2
#: Folders of tests that the others leave out: many tests, which seldom wait.
_LEFT_OUT: Final = ("unit", "integration", "conformance")


_SESSION: Final = pytest.StashKey[pytest.Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep the session for the scheduler."""
    session.config.stash[_SESSION] = session


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Replace the scheduler that gives each file to one worker."""
    if config.getvalue("dist") != "loadfile":
        return None
    return FileScheduling(len(parse_tx_spec_config(config)), config.stash[_SESSION])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the folders that this worker does not run."""
    tests = config.rootpath / "tests"
    left_out = collection_path.parent == tests and collection_path.name in _LEFT_OUT
    return True if left_out and _knows_some(config, tests) else None


def _knows_some(config: pytest.Config, tests: Path) -> bool:
    """Return whether this worker leaves tests out: one of the further ones of a run of all tests.

    One that replaces a crashed worker has a higher number, and knows all.
    """
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    number, count = int(worker.get("workerid", "gw0").removeprefix("gw")), int(worker.get("workercount", 1))
    chosen = config.option.keyword or config.option.markexpr or config.getoption("deselect")
    return _WITH_ALL <= number < count and not chosen and [Path(one).resolve() for one in config.args] == [tests]


#: Its name, and how many of that name come before it: Schemathesis gives all operations of a test one name.
_Test = tuple[str, int]


class _Worker:
    """A worker.

    Attributes:
        collected: The tests that it knows, by the number that it knows them by; ``None`` until it has told.
        numbers: The other way round.
        pending: The tests that it was given and has not ended, in their order.
    """

    def __init__(self) -> None:
        self.collected: list[_Test] | None = None
        self.numbers: dict[_Test, int] = {}
        self.pending: dict[_Test, None] = {}


class FileScheduling:
    """Give each file to one worker that knows it; queue again what a crashed worker left, but not what crashed it.

    Args:
        workers: How many the run begins with.
        session: Shows how many of the tests are done.
    """

    def __init__(self, workers: int, session: pytest.Session) -> None:
        self._count = workers
        self._session = session
        self._workers: dict[WorkerController, _Worker] = {}
        self._queue: dict[str, list[_Test]] | None = None
        self._rare: set[str] = set()  # files that not every worker knows

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers."""
        return list(self._workers)

    @property
    def collection_is_completed(self) -> bool:
        """Whether the run has its workers, and all have told what they know; or had."""
        told = [worker for worker in self._workers.values() if worker.collected is not None]
        return self._queue is not None or self._count <= len(told) == len(self._workers)

    @property
    def tests_finished(self) -> bool:
        """Whether no worker needs more than to be told that nothing follows."""
        done = self.collection_is_completed and not self._queue
        return done and all(len(worker.pending) < 2 for worker in self._workers.values())

    @property
    def has_pending(self) -> bool:
        """Whether tests are left."""
        return bool(self._queue) or any(worker.pending for worker in self._workers.values())

    def add_node(self, node: WorkerController) -> None:
        """Take a worker. What it cannot be sent any more is queued again once its end is told."""
        send = node.send_runtest_some

        def send_if_alive(indices: Sequence[int]) -> None:
            with contextlib.suppress(OSError):
                send(indices)

        node.send_runtest_some = send_if_alive  # the library ends the run instead
        self._workers[node] = _Worker()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Note what a worker knows."""
        worker = self._workers[node]
        seen, tests = collections.Counter[str](), list[_Test]()
        for name in collection:
            tests.append((name, seen[name]))
            seen[name] += 1
        worker.collected, worker.numbers = tests, {test: number for number, test in enumerate(tests)}

    def schedule(self) -> None:
        """Give work to all workers."""
        if self._queue is None:
            self._queue = self._files()
        for node in self.nodes:
            self._supply(node)

    def _files(self) -> dict[str, list[_Test]]:
        """Return the tests of each file, in the order of the worker that knows most.

        Raises:
            RuntimeError: Another knows others.
        """
        known = max((worker.collected or [] for worker in self._workers.values()), key=len)
        self._session.testscollected = len(known)  # the library takes what the last one has told
        everything, files = set(known), dict[str, list[_Test]]()
        for worker in self._workers.values():
            if strange := set(worker.numbers) - everything:
                raise RuntimeError(f"the workers collect different tests: {sorted(strange)[:3]}")
        for test in known:
            files.setdefault(_file(test), []).append(test)
            if not all(test in worker.numbers for worker in self._workers.values()):
                self._rare.add(_file(test))
        return files

    def _supply(self, node: WorkerController) -> None:
        """Give a worker more if it needs it: it runs a test only when it knows the next one or that there is none."""
        worker = self._workers[node]
        if worker.collected is None:
            return
        while len(worker.pending) < 2 and not node.shutting_down:
            queue = self._queue or {}
            known = [file for file, tests in queue.items() if all(test in worker.numbers for test in tests)]
            if not known:
                node.shutdown()
                return
            tests = queue.pop(next((file for file in known if file in self._rare), known[0]))
            worker.pending.update(dict.fromkeys(tests))
            node.send_runtest_some([worker.numbers[test] for test in tests])

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Note the end of a test."""
        worker = self._workers[node]
        if worker.collected is not None:
            worker.pending.pop(worker.collected[item_index], None)
        self._supply(node)

    def mark_test_pending(self, item: str) -> NoReturn:
        """Fail: no test is repeated."""
        raise NotImplementedError

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> NoReturn:
        """Fail: no test is taken back."""
        raise NotImplementedError

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a worker and queue its unfinished tests again; return the one during which it crashed."""
        pending = list(self._workers.pop(node).pending)
        if not pending:
            return None
        crashed, *left = pending
        files: dict[str, list[_Test]] = {}
        for test in left:
            files.setdefault(_file(test), []).append(test)
        self._queue = {**files, **(self._queue or {})}
        self.schedule()
        return crashed[0]


def _file(test: _Test) -> str:
    """Return the file of a test."""
    return test[0].partition("::")[0]
