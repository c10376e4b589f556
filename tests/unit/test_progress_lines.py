"""Progress: who waits at a terminal is told for what, and a pipe gets nothing."""

from __future__ import annotations

import io
import os
import pty
import sys
from unittest import mock

from hearth.cli.progress import progress


def test_a_terminal_shows_what_takes_long_again_and_again() -> None:
    screen, terminal = pty.openpty()
    with (
        open(screen, "rb", buffering=0) as shown,
        open(terminal, "w") as stderr,
        mock.patch.object(sys, "stderr", stderr),
        progress("building hello", first_s=0.0, next_s=0.001),
    ):
        said = b""
        while b"building hello ... " not in said:
            said += shown.read(1000)  # returns when there is a line
    assert said.startswith(b"building hello ...\r\n")


def test_what_ends_in_time_shows_nothing() -> None:
    screen, terminal = pty.openpty()
    os.set_blocking(screen, False)
    with open(screen, "rb", buffering=0) as shown, open(terminal, "w") as stderr:
        with mock.patch.object(sys, "stderr", stderr), progress("building hello", first_s=3600):
            pass
        assert shown.read(1000) is None


def test_a_pipe_gets_no_progress() -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with mock.patch.object(sys, "stderr", pipe), progress("building hello", first_s=0.0, next_s=0.0):
        pass
    assert pipe.buffer.getvalue() == b""
