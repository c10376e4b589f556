"""The ``json`` format: each call is one JSON object on stdin, answered by one JSON object on stdout."""

from __future__ import annotations

import codecs
from typing import Final

import msgspec

from hearth.contracts.base import CallInput, Head
from hearth.contracts.stdio.codec import Decoder, Encoder
from hearth.contracts.stdio.exchange import StdioContract
from hearth.contracts.stdio.fields import decode_lossy, to_unicode, well_formed
from hearth.contracts.stdio.json_answer import MAX_ANSWER_BYTES, Answer, JsonDecoder, read_whole

#: An object up to this size is written in one piece.
_FIRST_BYTES: Final = 64 * 1024
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
#: Escaped in strings although JSON does not ask for it; outside strings none of these can occur.
_ESCAPES: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


class JsonEncoder(Encoder):
    """Collects the body, then writes one object.

    A body that comes in pieces is converted piece by piece: in one go, it would stop the event loop.

    The line ends stand exactly where readers in use look for them: some stop at the first ``}`` that begins a line,
    then take four bytes more.
    """

    __slots__ = ("_call", "_decoder", "_on_one_line", "_quoted", "_rest", "_whole", "lossy")

    def __init__(self, call: CallInput, *, on_one_line: bool = False) -> None:
        self._call = call
        self._on_one_line = on_one_line
        self._whole = b""
        self._quoted: list[bytes] = []
        self._rest: list[bytes] = []
        self._decoder: codecs.IncrementalDecoder | None = None
        self.lossy = False

    def body(self, data: bytes) -> bytes:
        """Return nothing yet: the object is written when the body is complete."""
        if len(data) == self._call.content_length:
            self._whole = data
        else:
            self._add(data)
        return b""

    def end(self) -> bytes:
        """Return the object, or the beginning of a large one."""
        before, after = _around(self._call, self._on_one_line)
        if self._decoder is None and len(self._whole) <= _FIRST_BYTES:
            return _escape(b"".join([before, self._take_whole(), after]))
        pieces = [_escape(before), *self._take_body(), _escape(after)]
        size = count = 0
        while count < len(pieces) and size <= _FIRST_BYTES:
            size += len(pieces[count])
            count += 1
        self._rest = pieces[count:]
        return b"".join(pieces[:count])

    def rest(self) -> list[bytes]:
        """Return what follows of a large object."""
        rest, self._rest = self._rest, []
        return rest

    def _take_body(self) -> list[bytes]:
        if self._decoder is not None:
            self._add(b"", final=True)
            quoted, self._quoted = self._quoted, []
            return quoted
        return [_escape(self._take_whole())]

    def _take_whole(self) -> bytes:
        """Return a body that came in one piece as the content of a string, not escaped yet."""
        data, self._whole = self._whole, b""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.lossy = True
            text = decode_lossy(data)
        return msgspec.json.encode(text)[1:-1]

    def _add(self, data: bytes, *, final: bool = False) -> None:
        if self._decoder is None:
            self._decoder = _UTF8("surrogateescape")
        text = self._decoder.decode(data, final)
        sound = well_formed(text)
        self.lossy = self.lossy or sound != text
        self._quoted.append(_escape(msgspec.json.encode(sound)[1:-1]))


def _around(call: CallInput, on_one_line: bool) -> tuple[bytes, bytes]:
    """Return what stands before and after the content of the body, not escaped yet."""
    line_end = b"" if on_one_line else b"\n"
    content_type = call.headers.get("Content-Type") or ("",)
    headers = {
        to_unicode(name): [to_unicode(value) for value in values] for name, values in sorted(call.headers.items())
    }
    before = [
        b"{",
        b'"call_id":%b' % _quote(call.call_id),
        b',"content_type":%b' % _quote(to_unicode(content_type[0])),
        b',"type":%b' % _quote(call.call_type),
        b',"deadline":%b' % _quote(call.deadline),
        b',"body":"',
    ]
    after = [
        b'"',
        b',"protocol":{"type":"http"',
        b',"method":%b' % _quote(call.method),
        b',"request_url":%b' % _quote(call.url),
        b',"headers":%b' % msgspec.json.encode(headers),
        b"}",
        b"}",
        b"\n",
    ]
    return line_end.join(before), line_end.join(after)


def _quote(text: str) -> bytes:
    return msgspec.json.encode(well_formed(text))


def _escape(encoded: bytes) -> bytes:
    for plain, escaped in _ESCAPES:
        encoded = encoded.replace(plain, escaped)
    return encoded


class JsonContract(StdioContract):
    """JSON objects over the streams of a hot container.

    Args:
        max_answer_bytes: Limit on one answer's text, which is held in memory while it is read.
        on_one_line: Each message to the function takes one line, as from March 2018 on.
    """

    name = "json"
    hot = True
    holds_body = True
    piece_bytes = 12 * 1024  # of many small values they take 10 ms

    def __init__(self, *, max_answer_bytes: int = MAX_ANSWER_BYTES, on_one_line: bool = False) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._on_one_line = on_one_line
        self.spare_input = 1 if on_one_line else 2  # the line ends

    def whole_input(self, call: CallInput, body: bytes) -> bytes | None:
        """Return the object, if the body is UTF-8."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return None
        before, after = _around(call, self._on_one_line)
        return _escape(b"".join([before, msgspec.json.encode(text)[1:-1], after]))

    def whole_answer(self, call: CallInput, data: bytes) -> tuple[Head, bytes] | None:
        """Return the answer, if these bytes are one object and blanks."""
        return read_whole(data, shows_body=call.shows_body) if len(data) <= self._max_answer_bytes else None

    def encoder(self, call: CallInput) -> Encoder:
        """Make the writer of one call's input."""
        return JsonEncoder(call, on_one_line=self._on_one_line)

    def decoder(self, call: CallInput) -> Decoder:
        """Make the reader of one call's answer."""
        return JsonDecoder(shows_body=call.shows_body, max_answer_bytes=self._max_answer_bytes)

    def log_form(self, head: Head, body: bytes) -> bytes:
        """Return the answer again, on one line, with ``protocol`` only where the function gave one."""
        answer = head.original if isinstance(head.original, Answer) else Answer(status=head.status)
        line: dict[str, object] = {"body": decode_lossy(body), "content_type": answer.content_type}
        if answer.has_protocol:
            protocol: dict[str, object] = {}
            if answer.status:
                protocol["status_code"] = answer.status
            if answer.headers:
                protocol["headers"] = {name: answer.headers[name] for name in sorted(answer.headers)}
            line["protocol"] = protocol
        return _escape(msgspec.json.encode(line)) + b"\n"
