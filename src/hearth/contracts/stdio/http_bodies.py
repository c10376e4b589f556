"""Find the end of the body of an HTTP response that comes in chunks."""

from __future__ import annotations

import enum
import re
from typing import Final

from hearth.contracts.stdio.codec import InvalidOutput

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_MAX_LINE_BYTES: Final = 4096
_MAX_TRAILER_BYTES: Final = 64 * 1024


class _Line(enum.Enum):
    """The next line of a chunked body."""

    SIZE = "size"
    CHUNK_END = "chunk end"  # the empty line after a chunk's data
    TRAILER = "trailer"  # a field after the last chunk, or the empty line that ends the body


class ChunkedBody:
    """A body in chunks (RFC 9112 7.1). Extensions and trailers are dropped; lines may end in a bare line feed.

    A chunk is passed on as it arrives, not when it is complete; many small ones that arrive together become one piece.
    """

    __slots__ = ("_left", "_line", "_next", "_trailer_bytes")

    def __init__(self) -> None:
        self._next = _Line.SIZE
        self._line = b""
        self._left = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the body's bytes among these, and the bytes after its end; ``None`` while it has not ended.

        Raises:
            InvalidOutput: The framing is broken.
        """
        pieces: list[bytes] = []
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                position += len(piece)
                continue
            line_end = data.find(b"\n", position) + 1
            self._line += data[position : line_end or len(data)]
            if len(self._line) > _MAX_LINE_BYTES:
                raise InvalidOutput("chunk line too long")
            if not line_end:
                break
            position = line_end
            line, self._line = self._line[:-1].removesuffix(b"\r"), b""
            if self._take_line(line):
                return b"".join(pieces), data[position:]
        return b"".join(pieces), None

    def _take_line(self, line: bytes) -> bool:
        """Act on one line; return whether it ended the body."""
        if self._next is _Line.SIZE:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise InvalidOutput("malformed chunk size")
            self._left = int(match[1], 16)
            self._next = _Line.CHUNK_END if self._left else _Line.TRAILER
            return False
        if self._next is _Line.CHUNK_END:
            if line:
                raise InvalidOutput("malformed chunk end")
            self._next = _Line.SIZE
            return False
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise InvalidOutput("trailer too long")
        return not line
