"""The log of a call: what its function wrote to stderr, up to a limit (agent specification 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hearth.telemetry.logs import get_logger, is_debug

DEFAULT_LIMIT_BYTES: Final = 1024 * 1024
_LINE_LIMIT: Final = 16 * 1024
#: Characters of a log's last line that are worth telling elsewhere.
_TOLD: Final = 200
_TAIL_BYTES: Final = 4096
_CUT_BEGIN: Final = b"\n-----max log size "
_CUT_END: Final = b" bytes exceeded, truncating log-----\n"

_log = get_logger(__name__)


class LineLog:
    """Copies a stream to the server's log at debug, line by line.

    Args:
        fields: Asked what every line carries: whose output it is.
    """

    __slots__ = ("_fields", "_partial")

    def __init__(self, fields: Callable[[], dict[str, Any]]) -> None:
        self._fields = fields
        self._partial = b""

    def write(self, data: bytes) -> None:
        """Take some bytes; whole lines are logged at once, an unfinished one when it is finished or too long."""
        if not is_debug():
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._partial) > _LINE_LIMIT:
            self.close()

    def close(self) -> None:
        """Log the unfinished last line, if there is one."""
        if self._partial:
            self._emit(self._partial)
            self._partial = b""

    def _emit(self, line: bytes) -> None:
        _log.debug(line.decode("utf-8", "replace"), **self._fields())


class CallLog:
    """One call's log. What exceeds the limit is cut at the byte and a marker says so; never an error for anybody.

    Args:
        lines: Where a copy goes as it comes.
        limit: Bytes to keep.
    """

    __slots__ = ("_chunks", "_cut", "_late", "_limit", "_lines", "_open", "_size")

    def __init__(self, lines: LineLog, limit: int = DEFAULT_LIMIT_BYTES) -> None:
        self._lines = lines
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self._cut = False
        self._open = True
        self._late: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Take some bytes of output."""
        self._lines.write(data)
        if self._cut or not self._open:
            return
        room = self._limit - self._size
        if len(data) > room:
            self._cut = True
            data = data[:room]
        if data:
            self._chunks.append(data)
            self._size += len(data)
        if self._late is not None:
            late, self._late = self._late, None
            late()

    def precede(self, data: bytes) -> None:
        """Put output before all the rest, as far as there is room."""
        data = data[: self._limit - self._size]
        self._chunks.insert(0, data)
        self._size += len(data)

    def take(self, late: Callable[[], None] | None = None) -> bytes:
        """End the log: its bytes, with the marker if it was cut.

        Args:
            late: Called when more comes: then it is worth while to take it all once more. Without it, or once the log
                was cut, later bytes are not kept.
        """
        self._lines.close()
        self._late = None if self._cut else late
        self._open = self._late is not None
        if self._cut:
            self._chunks.append(b"%b%d%b" % (_CUT_BEGIN, self._limit, _CUT_END))
        text = b"".join(self._chunks)
        self._chunks = [text] if self._open else []
        return text

    def forget(self) -> None:
        """Nothing is kept any more; of no effect while late bytes are to be taken."""
        if self._late is not None:
            self._late, self._open = None, False
            self._chunks.clear()


def last_line(log: bytes) -> str:
    """The last line of a log that says something, shortened; empty if there is none."""
    if log.endswith(_CUT_END):
        log = log.rpartition(_CUT_BEGIN)[0]
    line = log[-_TAIL_BYTES:].rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")
    text = "".join(sign if sign.isprintable() else " " for sign in line).strip()
    return text if len(text) <= _TOLD else f"{text[: _TOLD - 3]}..."
