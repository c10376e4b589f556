"""HTTP/1.1 by hand: for what no client library would send."""

from __future__ import annotations

import dataclasses
import json
import socket
from typing import Any
from urllib.parse import urlsplit


@dataclasses.dataclass(frozen=True)
class RawAnswer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The text of an error."""
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return json.loads(self.body)["error"]["message"]


class RawClient:
    """One connection."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, to wait with."""
        return self._socket.fileno()

    def send(self, data: bytes | str) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def quiet_for(self, seconds: float) -> bool:
        """Nothing comes, and the connection stays open, for so long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
            return False
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(60)

    def answer(self, method: str = "GET") -> RawAnswer | None:
        """The next answer; none if the server has closed instead."""
        try:
            line = self._file.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        headers: dict[str, str] = {}
        while field := self._file.readline().rstrip(b"\r\n"):
            name, _, value = field.decode("latin-1").partition(": ")
            headers[name] = value
        status = int(line.split()[1])
        bodiless = method == "HEAD" or status in (100, 204, 304)
        return RawAnswer(status, headers, b"" if bodiless else self._body(headers))

    def is_closed(self) -> bool:
        """Nothing more comes."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self._file.read(int(headers["content-length"]))
        body = b""
        while size := int(self._file.readline(), 16):
            body += self._file.read(size)
            self._file.readline()
        self._file.readline()
        return body
