"""A pytest plugin: a parallel run goes on after a worker has crashed.

The scheduler of pytest-xdist 3.8 queues the work of a crashed worker again as a whole, with the files that are finished
and with the test that crashed it. Finished files hold up the workers that get them, so that the run never ends
(pytest-xdist issues 1323 and 1378), and the crash repeats until no worker may be replaced (pull request 1371).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Replace the scheduler that gives each file to one worker."""
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


class FileScheduling(LoadFileScheduling):
    """Give each file to one worker; queue again what a crashed worker left, but not the test that crashed it."""

    def add_node(self, node: WorkerController) -> None:
        """Take a worker. What it cannot be sent any more is queued again once its end is told."""
        send = node.send_runtest_some

        def send_if_alive(indices: Sequence[int]) -> None:
            with contextlib.suppress(OSError):
                send(indices)

        node.send_runtest_some = send_if_alive  # the library ends the run instead
        super().add_node(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a worker and queue its unfinished tests again; return the one during which it crashed."""
        unfinished = {
            file: {test: False for test, done in tests.items() if not done}
            for file, tests in self.assigned_work.pop(node).items()
        }
        left = {file: tests for file, tests in unfinished.items() if tests}
        if not left:
            return None
        file, tests = next(iter(left.items()))
        crashed = next(iter(tests))
        del tests[crashed]
        if not tests:
            del left[file]
        self.workqueue.update(left)
        self.schedule()
        return crashed

    def schedule(self) -> None:
        """Give work to all workers.

        A worker runs a test only when it knows the next one or that there is none: one that replaces another needs a
        second turn, because its first file may have only one test.
        """
        replaces = self.collection is not None
        super().schedule()
        if replaces:
            super().schedule()
