"""Sees which calls are executed, from outside of the platform: functions hold a connection while they run."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator


class Witness:
    """What was seen.

    Attributes:
        address: Where functions tell.
        executions: How often each call was begun.
        calls_of: The calls that were begun for each key, and each firing of a schedule.
        twice_at_once: Calls that were begun while they ran.
        go: While it is not set, functions that were seen go no further.
    """

    def __init__(self) -> None:
        self.address = ""
        self.executions: Counter[str] = Counter()
        self.calls_of: defaultdict[str, set[str]] = defaultdict(set)
        self.running: Counter[str] = Counter()
        self.twice_at_once: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self._lock = threading.Lock()

    def begin(self, call_id: str, work: str) -> None:
        with self._lock:
            if work:
                self.calls_of[work].add(call_id)
            if self.running[call_id]:
                self.twice_at_once.append(call_id)
            self.executions[call_id] += 1
            self.running[call_id] += 1

    def end(self, call_id: str) -> None:
        with self._lock:
            self.running[call_id] -= 1


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


@contextlib.contextmanager
def watching(address: str = "127.0.0.1") -> Iterator[Witness]:
    """A witness that listens at this address."""
    witness = Witness()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            call_id, _, work = self.rfile.readline().decode().strip().partition(" ")
            if not call_id:
                return
            witness.begin(call_id, work)
            witness.go.wait()
            with contextlib.suppress(OSError):  # it was killed
                self.wfile.write(b".")
                self.rfile.read()
            witness.end(call_id)

    with _Server((address, 0), Handler) as server:
        witness.address = f"{address}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield witness
        finally:
            server.shutdown()
            thread.join()
