"""``hearth start`` with the garbage collector off and its event loop measured.

``metered_start.py REPORT``. On SIGUSR1, and when it ends, the node writes to the file REPORT what was measured since it
served, or since the last report: see :class:`Report`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.turns import LIMIT_S, Turns

#: Between two looks at the loop: short beside the limit, and next to no work.
_REST_S: Final = 0.001
_SAMPLE_S: Final = 0.005
_KEPT: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What was measured.

    Attributes:
        longest_s: Processor time of the longest turn of the loop, in seconds.
        turns: How many turns were looked at.
        slow: What ran in turns of more than half of the limit, as stacks.
        resident_mib: Memory of the process, without what its allocator keeps for later.
        garbage: Objects that only the collector can free, by type.
    """

    longest_s: float
    turns: int
    slow: list[str]
    resident_mib: int
    garbage: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read one from a file."""
        return cls(**json.loads(path.read_text()))


class Meter:
    """Measures the loop of the thread that makes it."""

    def __init__(self) -> None:
        self._turns = Turns(_REST_S)
        self._thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread)
        self._slow: collections.deque[str] = collections.deque(maxlen=_KEPT)

    def begin(self) -> None:
        """Measure from now on; on the loop's thread."""
        self._slow.clear()
        self._turns.begin()
        gc.disable()

    def report(self) -> Report:
        """Return what was measured, and begin anew; on the loop's thread."""
        self._turns.end()
        self._turns.last_s = 0.0  # nobody watches what follows
        slow = list(self._slow)
        found = Report(self._turns.longest_s, self._turns.count, slow, _resident_mib(), _garbage())
        self.begin()
        return found

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note meanwhile what runs in slow turns."""
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), name="meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(_SAMPLE_S):
            if not self._turns.last_s:
                continue
            taken_s = time.clock_gettime(self._clock) - self._turns.last_s
            if taken_s > LIMIT_S / 2 and (frame := sys._current_frames().get(self._thread)):
                stack = "".join(traceback.format_stack(frame)[-8:])
                self._slow.append(f"{taken_s * 1000:.0f} ms so far\n{stack}")


def _resident_mib() -> int:
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def _garbage() -> dict[str, int]:
    """Collect garbage; the number of objects by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = collections.Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    gc.garbage.clear()
    gc.collect()
    return dict(found)


def main(path: Path) -> None:
    """Run the node."""
    from hearth import nodes
    from hearth.cli.start import start

    serve: Any = nodes.serve

    async def serve_measured(
        settings: Any, announce: Callable[..., None], options: Any = None, place: Any = None
    ) -> None:
        meter = Meter()

        def write() -> None:
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(dataclasses.asdict(meter.report())))
            draft.replace(path)

        def announced(*arguments: Any) -> None:
            announce(*arguments)
            meter.begin()

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, write)
        with meter.watching():
            await serve(settings, announced, options, place)
        write()

    nodes.serve = serve_measured
    start(workers="1", nodes_=1)


if __name__ == "__main__":
    os.chdir("/")
    main(Path(sys.argv[1]))
