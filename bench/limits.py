"""What a platform is measured against: the same function, with less and less around it.

``python -m bench.limits raw`` serves a fixed answer, ``python -m bench.limits proxy N FILE`` hands each request to one
of N processes of the function over pipes and does nothing else. Both on the event loop and the HTTP server of a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from bench.load import BODY

_HEAD: Final = b"POST / HTTP/1.1\r\nHost: x\r\nFn_call_id: x\r\nContent-Length: %d\r\n\r\n"
_MESSAGE: Final = b'{"call_id":"x","type":"sync","body":%b,"protocol":{"request_url":"/","headers":{}}}\n\n'
_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"1"), (b"content-type", b"text/plain")],
}


class Direct:
    """The function's process, called over its own pipes by whoever needs the answer: nothing can be faster."""

    def __init__(self, function: str, format_name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, function], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"FN_FORMAT": format_name}
        )
        self._is_json = format_name == "json"

    def __call__(self) -> None:
        """One call."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        body = BODY.encode()
        if self._is_json:
            stdin.write(
                b'{"call_id":"x","content_type":"","type":"sync","body":%b,"protocol":{"request_url":"/","headers":{}}}\n\n'
                % _quoted(body)
            )
        else:
            stdin.write(http_message(body))
        stdin.flush()
        if self._is_json:
            stdout.readline()
            return
        length = 0
        while (line := stdout.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        stdout.read(length)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def limit(*arguments: str) -> Iterator[tuple[str, int]]:
    """A server of this module as a process of its own: its URL and its process id."""
    process = subprocess.Popen([sys.executable, "-m", "bench.limits", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.kill()
        process.communicate()


class _Pipes(asyncio.Protocol):
    """One process of the function."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] | None = None
        self.stdin: asyncio.WriteTransport | None = None
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._got.partition(b"\r\n\r\n")[2] and self.answered is not None:
            self._got = b""
            self.answered.set_result(None)


async def _raw(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send({"type": "http.response.body", "body": b"x"})


class _Proxy:
    """Hands a request to a process that is free, and its answer back."""

    def __init__(self, processes: int, function: str) -> None:
        self._count = processes
        self._function = function
        self._free: asyncio.Queue[_Pipes] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._free is None:
            self._free = asyncio.Queue()
            for _ in range(self._count):
                self._free.put_nowait(await self._start())
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        function = await self._free.get()
        function.answered = asyncio.get_running_loop().create_future()
        assert function.stdin is not None
        function.stdin.write(http_message(body))
        await function.answered
        self._free.put_nowait(function)
        await send(_START)
        await send({"type": "http.response.body", "body": b"x"})

    async def _start(self) -> _Pipes:
        loop = asyncio.get_running_loop()
        process = subprocess.Popen(
            [sys.executable, self._function], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"FN_FORMAT": "http"}
        )
        _, pipes = await loop.connect_read_pipe(_Pipes, process.stdout)
        pipes.stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        return pipes


def http_message(body: bytes) -> bytes:
    """What a function of the format ``http`` reads of one call."""
    return _HEAD % len(body) + body


def _quoted(body: bytes) -> bytes:
    return b'"' + body.replace(b'"', b'\\"') + b'"'


def main() -> None:
    """Serve, after printing the URL."""
    app = _raw if sys.argv[1] == "raw" else _Proxy(int(sys.argv[2]), sys.argv[3])
    config = uvicorn.Config(
        app, port=0, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="error"
    )
    listener = config.bind_socket()
    listener.listen()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
