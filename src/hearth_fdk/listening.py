"""The format ``http-stream``: the program is an HTTP server on a Unix socket, for one request at a time."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping

from hearth_fdk.context import Call
from hearth_fdk.framing import HttpReader, http_answer, http_chunk, http_stream_head
from hearth_fdk.serving import Head, Output, Reply, Runner, StreamBroken

_PIECE = 65536
_SCHEME = "unix:"
_TWIN = "phonylsnr.sock"
_PREFIX = "Fn-Http-H-"
_STATUS = "Fn-Http-Status"
_BODYLESS = (204, 304)
#: What tells the platform that the function failed, where a status of its own would not reach anybody.
_FAILED = 502


class ClientGone(BaseException):
    """The platform has closed the connection: the handler stops, which is no failure of it."""


def serve(runner: Runner, environment: Mapping[str, str]) -> None:
    """Serve a handler until the program is killed.

    Raises:
        SystemExit: The environment names no socket, or it cannot be made.
    """
    with _listen(environment.get("FN_LISTENER", "")) as listener:
        if (limit := calls_at_once(environment)) > 1:
            from hearth_fdk import sharing  # only for those who need it

            sharing.serve(runner, listener, limit)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    _serve(runner, environment, connection)
                except (ClientGone, ConnectionError):
                    pass  # it makes another connection, or kills this program


def calls_at_once(environment: Mapping[str, str]) -> int:
    """Return how many calls the platform sends at once."""
    text = environment.get("FN_CONCURRENCY", "1")
    if not (text.isascii() and text.isdigit() and text.strip("0")):
        sys.exit(f"FN_CONCURRENCY={text}: must be a number above 0")
    return int(text)


def _listen(address: str) -> socket.socket:
    """Listen under another name first: the socket appears when it takes connections."""
    path = address[len(_SCHEME) :]
    if not address.startswith(_SCHEME) or not path:
        sys.exit(f"FN_LISTENER={address}: must be unix:/path of a socket")
    twin = os.path.join(os.path.dirname(path), _TWIN)
    listener = socket.socket(socket.AF_UNIX)
    try:
        for old in (path, twin):
            if os.path.lexists(old):
                os.unlink(old)
        listener.bind(twin)
        os.chmod(twin, 0o666)  # noqa: S103  # the server may be another user
        listener.listen()
        os.symlink(_TWIN, path)
    except OSError as exc:
        sys.exit(f"FN_LISTENER={address}: {exc.strerror or exc}")
    return listener


def _serve(runner: Runner, environment: Mapping[str, str], connection: socket.socket) -> None:
    reader, frame = StreamReader(), LogFrame(environment)
    while piece := connection.recv(_PIECE):
        for call in reader.feed(piece):
            frame.mark(call)
            runner.answer(call, StreamOutput(connection.sendall, is_plain=call.is_plain))


class LogFrame:
    """Marks where the log of a request begins, if the configuration asks for it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._name = environment.get("FN_LOGFRAME_NAME", "")
        self._header = environment.get("FN_LOGFRAME_HDR", "")

    def mark(self, call: Call) -> None:
        """Write the mark of a call."""
        if self._name and self._header:
            value = call.call_id if self._header.lower() == "fn-call-id" else call.headers.get(self._header)
            if value:
                print(f"\n{self._name}={value}", file=sys.stderr, flush=True)


class StreamReader(HttpReader):
    """Calls as requests to ``/call``: what the client asked for is in the headers."""

    def call(self, method: str, target: str, headers: Mapping[str, list[str]], body: bytes) -> Call:
        """Return the call of a request."""
        said = {name.lower(): values[0] for name, values in headers.items()}
        is_plain = said.get("fn-intent") != "httprequest"
        own = {"fn-call-id", "fn-deadline", "host", "transfer-encoding", "connection"}
        if not is_plain:
            own |= {"fn-intent", "fn-http-method", "fn-http-request-url", "content-length"}
        given: dict[str, list[str]] = {}
        for name, values in headers.items():
            if name.lower() not in own:
                shown = name[len(_PREFIX) :] if not is_plain and name.lower().startswith(_PREFIX.lower()) else name
                given.setdefault(shown, []).extend(values)
        return Call(
            call_id=said.get("fn-call-id", ""),
            method=method if is_plain else said.get("fn-http-method", method),
            request_url=target if is_plain else said.get("fn-http-request-url", target),
            headers=given,
            body=body,
            deadline=said.get("fn-deadline", ""),
            is_plain=is_plain,
        )


class StreamOutput(Output):
    """Answers on a connection. The status on the wire says that the function ran; the client's is a header.

    Args:
        send: Sends bytes on the connection.
        is_plain: The caller sees the headers as they are; otherwise they are marked as the client's.
    """

    def __init__(self, send: Callable[[bytes], object], *, is_plain: bool) -> None:
        self._send_all = send
        self._is_plain = is_plain

    def whole(self, reply: Reply, method: str) -> None:
        """Write a whole answer."""
        status, headers, body = reply
        wire, fields = self._head(status, headers)
        self._send(http_answer(wire, fields, body))

    def begin(self, head: Head, method: str) -> bool:
        """Write the head of an answer; return whether a body may follow."""
        wire, fields = self._head(*head)
        data, _ = http_stream_head(wire, fields)
        has_body = method != "HEAD" and head[0] not in _BODYLESS
        self._send(data if has_body else data + http_chunk(b""))
        return has_body

    def piece(self, data: bytes) -> None:
        """Write a piece of the body."""
        self._send(http_chunk(data))

    def end(self) -> None:
        """Write the end of the body."""
        self._send(http_chunk(b""))

    def broken(self, reply: Reply, method: str) -> None:
        """End the program: an end of the body would say that it is whole."""
        raise StreamBroken(1)

    def _head(self, status: int, headers: Mapping[str, list[str]]) -> Head:
        wire = _FAILED if self._is_plain and status >= 500 else 200
        fields = {_STATUS: [str(status)]}
        for name, values in headers.items():
            is_marked = not self._is_plain and name.lower() != "content-type"
            fields[f"{_PREFIX}{name}" if is_marked else name] = values
        return wire, fields

    def _send(self, data: bytes) -> None:
        try:
            self._send_all(data)
        except ConnectionError as exc:
            raise ClientGone from exc
