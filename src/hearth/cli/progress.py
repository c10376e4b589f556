"""Lines on a terminal while something takes long; a pipe gets none."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Final

from hearth.cli.output import is_terminal, note, short_time

#: Seconds of silence before the first line, and between two lines.
_FIRST_S: Final = 1.0
_NEXT_S: Final = 10.0


@contextlib.contextmanager
def progress(doing: str, first_s: float = _FIRST_S, next_s: float = _NEXT_S) -> Iterator[None]:
    """Print what is being done if the block takes longer than a second, and again every ten seconds.

    Args:
        doing: The work, such as ``building hello``.
        first_s: Seconds before the first line.
        next_s: Seconds between two lines.
    """
    if not is_terminal(sys.stderr):
        yield
        return
    ended = threading.Event()
    speaker = threading.Thread(target=_speak, args=(ended, doing, first_s, next_s), daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()


def _speak(ended: threading.Event, doing: str, first_s: float, next_s: float) -> None:
    if ended.wait(first_s):
        return
    passed = first_s
    with contextlib.suppress(OSError, ValueError):  # stderr is broken: the command itself reports that
        note(f"{doing} ...")
        while not ended.wait(next_s):
            passed += next_s
            note(f"{doing} ... {short_time(passed)}")
