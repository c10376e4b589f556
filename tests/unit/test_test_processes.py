"""The servers of tests that are killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import processes

#: Starts a process from a thread that ends, and waits. The process tells its id itself: it is tied to its parent then.
PARENT = """
import threading, time
from tests.support.processes import spawn
children = []
starter = threading.Thread(target=lambda: children.append(spawn(["sh", "-c", "echo $$; exec sleep 600"])))
starter.start()
starter.join()
time.sleep(600)
"""


@pytest.mark.skipif(processes.SETPRIV is None, reason="no setpriv")
def test_a_process_lives_as_long_as_the_one_that_started_it() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        assert select.select([child], [], [], 0)[0] == []
        parent.send_signal(signal.SIGKILL)
        assert select.select([child], [], [], 30)[0] == [child]
        os.close(child)
