"""The destinations of log lines (operations specification 5): a thread writes them, so that none holds up a call.

Lines that a destination does not take in time are dropped and counted (``hearth_log_lines_dropped``).

The standard library's ``QueueListener`` writes one line at a time, and stops only when the destination has taken all;
its ``SysLogHandler`` writes no time, and does not connect again. So both are Hearth's own.
"""

from __future__ import annotations

import datetime as dt
import os
import queue
import select
import socket
import threading
import time
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import SplitResult, urlsplit

#: Lines that may wait for a destination.
_MAX_WAITING: Final = 10_000
_AT_ONCE: Final = 200
_CONNECT_S: Final = 5.0
_AGAIN_S: Final = 1.0
#: Seconds for what is left at the end.
_CLOSE_S: Final = 2.0
_MAX_DATAGRAM: Final = 60_000
#: "user-level messages" (RFC 5424, 6.2.1).
_FACILITY: Final = 1 << 3
_SEVERITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

Line = tuple[str, str]


class Unusable(Exception):
    """A destination is not available; the text says why, and what is used instead."""


class Sink(Protocol):
    """A destination. One thread calls it."""

    def write(self, lines: list[Line]) -> int:
        """Write lines, each with its level; return how many were lost."""

    def close(self) -> None:
        """Close the destination."""


class File:
    """An open file: stderr, or one that lines are appended to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, lines: list[Line]) -> int:
        """Write lines."""
        data = memoryview("".join([f"{text}\n" for _, text in lines]).encode("utf-8", "replace"))
        try:
            while data:
                taken = self._file.write(data)
                if taken is None:  # a full pipe that another process made non-blocking
                    _is_ready(self._file, select.POLLOUT)
                data = data[taken or 0 :]
        except OSError:
            return len(lines)
        return 0

    def close(self) -> None:
        """Close it."""
        self._file.close()


class Syslog:
    """A syslog server. After a connection broke, connect again, a second after the last try at the earliest."""

    def __init__(self, is_tcp: bool, host: str, port: int, prefix: str) -> None:
        self._is_tcp = is_tcp
        self._address = host, port
        self._tag = f"{socket.gethostname()} {prefix or 'hearth'}[{os.getpid()}]"
        self._again_at = 0.0
        self._socket: socket.socket | None = self._connect()

    def write(self, lines: list[Line]) -> int:
        """Send lines."""
        return sum([not self._send(level, text) for level, text in lines])

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, level: str, text: str) -> bool:
        try:
            if self._socket is None or self._is_left():
                self._reconnect()
            if self._socket is None:
                return False
            now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
            data = f"<{_FACILITY | _SEVERITIES.get(level, 6)}>{now} {self._tag}: {text}".encode("utf-8", "replace")
            self._socket.sendall(data + b"\n" if self._is_tcp else data[:_MAX_DATAGRAM])
        except OSError:
            self._lose()
            return False
        return True

    def _is_left(self) -> bool:
        """Return True if the server closed the connection: lines sent after that are lost without an error."""
        if not self._is_tcp or self._socket is None:
            return False
        return _is_ready(self._socket, select.POLLIN, 0) and self._socket.recv(1024) == b""

    def _reconnect(self) -> None:
        self._lose()
        if time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + _AGAIN_S
            self._socket = self._connect()

    def _lose(self) -> None:
        if self._socket is not None and self._is_tcp:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        if self._is_tcp:
            return socket.create_connection(self._address, _CONNECT_S)
        family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind, protocol)
        made.connect(address)
        return made


def _is_ready(file: BinaryIO | socket.socket, event: int, wait_ms: int | None = None) -> bool:
    """Return True if it is ready, now or within the wait. ``select.select`` knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(wait_ms))


class Writer:
    """Passes lines to a sink in a thread of its own.

    Attributes:
        dropped: Lines that the sink did not take.
    """

    def __init__(self, sink: Sink) -> None:
        self.dropped = 0
        self._sink = sink
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, level: str, text: str) -> None:
        """Queue a line; never waits."""
        if self._lines.qsize() >= _MAX_WAITING:
            self._lose(1)
        else:
            self._lines.put((level, text))

    def close(self) -> None:
        """Write the rest, if the destination takes it soon."""
        if self._thread.is_alive():
            self._lines.put(None)
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            batch = [self._lines.get()]
            while len(batch) < _AT_ONCE and batch[-1] is not None and not self._lines.empty():
                batch.append(self._lines.get())
            if lines := [line for line in batch if line is not None]:
                self._lose(self._sink.write(lines))
            if batch[-1] is None:
                self._sink.close()
                return

    def _lose(self, count: int) -> None:
        if count:
            with self._lock:
                self.dropped += count


def stderr() -> Sink:
    """Return the stderr of the process."""
    return File(_raw(2))


def open_sink(destination: str, prefix: str) -> tuple[Sink, str]:
    """Return a destination, and a warning or an empty text. Blocks while syslog connects: call it before the loop runs.

    Raises:
        Unusable: It is not available.
    """
    if destination in ("", "stderr"):
        return stderr(), ""
    warning = ""
    url, path = _parse(destination)
    if not url.netloc and not path:
        warning = "No scheme on logging url, adding udp://"
        url, path = _parse(f"udp://{destination}")
    if bool(url.netloc) == bool(path):
        raise Unusable("invalid logging location, defaulting to stderr")
    if url.scheme in ("udp", "tcp"):
        return _open_syslog(url, prefix), warning
    if url.scheme == "file":
        return _open_file(path), warning
    raise Unusable("unknown logging location scheme, defaulting to stderr")


def _parse(destination: str) -> tuple[SplitResult, str]:
    """Return a URL and its path; text that follows a scheme without a slash is not a path."""
    try:
        url = urlsplit(destination)
        _ = url.port
    except ValueError as exc:
        raise Unusable("could not parse logging URI, defaulting to stderr") from exc
    return url, url.path if not url.scheme or url.path.startswith("/") else ""


def _open_syslog(url: SplitResult, prefix: str) -> Syslog:
    try:
        return Syslog(url.scheme == "tcp", url.hostname or "localhost", url.port or 514, prefix)
    except OSError as exc:
        raise Unusable("unable to connect to syslog, defaulting to stderr") from exc


def _open_file(path: str) -> File:
    try:
        return File(_raw(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)))
    except (OSError, ValueError) as exc:
        raise Unusable("cannot open file, defaulting to stderr") from exc


def _raw(descriptor: int) -> Any:
    return os.fdopen(descriptor, "wb", buffering=0, closefd=descriptor != 2)
