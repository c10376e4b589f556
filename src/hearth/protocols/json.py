"""The ``json`` format: each call is one JSON object on stdin, answered by one JSON object on stdout."""

from __future__ import annotations

from typing import Final

import msgspec

from hearth.protocols.base import CallInput, CallProtocol, Decoder, Encoder, Head
from hearth.protocols.fields import decode_lossy, to_unicode, well_formed
from hearth.protocols.json_answer import MAX_ANSWER_BYTES, Answer, JsonDecoder

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

    The line ends stand exactly where readers in use look for them: some stop at the first ``}`` that begins a line,
    then take four bytes more.
    """

    __slots__ = ("_call", "_lossy", "_pieces")

    def __init__(self, call: CallInput) -> None:
        self._call = call
        self._pieces: list[bytes] = []
        self._lossy = False

    def body(self, data: bytes) -> bytes:
        """Nothing yet: the object is written when the body is complete."""
        self._pieces.append(data)
        return b""

    def end(self) -> bytes:
        """The whole object."""
        call = self._call
        content_type = call.headers.get("Content-Type") or ("",)
        headers = {
            to_unicode(name): [to_unicode(value) for value in values] for name, values in sorted(call.headers.items())
        }
        text = (
            b'{\n"call_id":%b\n,"content_type":%b\n,"type":%b\n,"deadline":%b\n,"body":%b\n,"protocol":{"type":"http"\n'
            b',"method":%b\n,"request_url":%b\n,"headers":%b\n}\n}\n\n'
        ) % (
            _quote(call.call_id),
            _quote(to_unicode(content_type[0])),
            _quote(call.call_type),
            _quote(call.deadline),
            _quote(self._take_body()),
            _quote(call.method),
            _quote(call.url),
            msgspec.json.encode(headers),
        )
        return _escape(text)

    @property
    def lossy(self) -> bool:
        """Whether the body was not UTF-8, so that some of its bytes became U+FFFD."""
        return self._lossy

    def _take_body(self) -> str:
        data = b"".join(self._pieces)
        self._pieces.clear()
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._lossy = True
            return decode_lossy(data)


def _quote(text: str) -> bytes:
    return msgspec.json.encode(well_formed(text))


def _escape(encoded: bytes) -> bytes:
    for plain, escaped in _ESCAPES:
        encoded = encoded.replace(plain, escaped)
    return encoded


class JsonProtocol(CallProtocol):
    """JSON objects over the streams of a hot container.

    Args:
        max_answer_bytes: Limit on one answer's text, which is held in memory while it is read.
    """

    name = "json"
    hot = True

    def __init__(self, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._max_answer_bytes = max_answer_bytes

    def encoder(self, call: CallInput) -> Encoder:
        """The writer of one call's input."""
        return JsonEncoder(call)

    def decoder(self, call: CallInput) -> Decoder:
        """The reader of one call's answer."""
        return JsonDecoder(shows_body=call.shows_body, max_answer_bytes=self._max_answer_bytes)

    def log_form(self, head: Head, body: bytes) -> bytes:
        """The answer again, on one line, with ``protocol`` only where the function gave one."""
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
