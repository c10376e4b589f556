"""Orders for functions that do harm, and answers that are none."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any, Final

FORMATS: Final = ("http", "json", "http-stream")
_OF_HTTP: Final = ("http", "http-stream")


@dataclasses.dataclass(frozen=True, slots=True)
class Hostile:
    """One way of doing harm.

    Attributes:
        orders: For the test function. If it answers at all, its body has to be ``echo``, which is the call's own text.
        formats: In which it is possible.
        echo: The function may answer; otherwise no answer is right.
        body: Bytes that are sent as the body; the orders are then in the URL.
    """

    name: str
    orders: dict[str, Any]
    formats: tuple[str, ...] = FORMATS
    echo: bool = True
    body: int = 0


def _run(text: str, **more: Any) -> dict[str, Any]:
    return {"run": textwrap.dedent(text), **more}


_STOLEN: Final = {
    "http": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
    "json": '{"body":"stolen"}\n',
    "http-stream": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
}
_HEAD: Final = "HTTP/1.1 200 OK\r\n"

_ENDS: Final = (
    Hostile("exits", {"exit": 0}, echo=False),
    Hostile("fails", {"exit": 3}, echo=False),
    Hostile("kills itself", {"kill": True}, echo=False),
    Hostile("dies half-way", {"die": True}, echo=False),
    Hostile("hangs half-way", {"partial": True}, echo=False),
    Hostile("exits after the answer", {"after": 0}),
    Hostile("fails after the answer", {"after": 1}),
    Hostile("sleeps", {"sleep_ms": 60_000}, echo=False),
    Hostile("closes stdout", {"close": True}, echo=False),
    Hostile("answers, then closes stdout", _run("import threading\nthreading.Timer(0.02, os.close, (1,)).start()")),
    Hostile("closes stdin", _run("os.close(0)")),
    Hostile("kills its parent", _run("os.kill(os.getppid(), 9)")),
    Hostile("kills all that it can", _run("os.kill(-1, 9)")),
    Hostile("stops itself", _run("os.kill(os.getpid(), signal.SIGSTOP)")),
)

_ANSWERS: Final = (
    Hostile("garbage", {"raw": "garbage\n\n\n\n"}, echo=False),
    Hostile("zeroes", _run("write(bytes(1_000_000))", raw=""), echo=False),
    Hostile("half of an object", {"raw": '{"body":"x",'}, ("json",), echo=False),
    Hostile("no object", {"raw": '["x"]\n'}, ("json",), echo=False),
    Hostile("many objects", _run("""write(b'{"x":[' + b"{}," * 1_000_000)""", raw=""), ("json",), echo=False),
    Hostile("deep lists", _run("write(b'[' * 1_000_000)", raw=""), ("json",), echo=False),
    Hostile("a large JSON head", _run("orders['headers'] = {'x': 'y' * 8_000_000}"), ("json",), echo=False),
    Hostile(
        "a large head beside a body", _run("orders['headers'] = {str(n): 'y' * 999 for n in range(8000)}"), echo=False
    ),
    Hostile("many fields", _run("orders['headers'] = {f'x-{n}': 'y' for n in range(5000)}"), echo=False),
    Hostile("large fields", _run("orders['headers'] = {f'x-{n}': 'y' * 1000 for n in range(100)}")),
    Hostile("a field without a name", {"raw": _HEAD + ": x\r\nContent-Length: 1\r\n\r\nx"}, _OF_HTTP, echo=False),
    Hostile("a line that is no field", {"raw": _HEAD + "x\r\nContent-Length: 1\r\n\r\nx"}, _OF_HTTP, echo=False),
    Hostile("a field with blanks", {"headers": {"a b": "x"}}, echo=False),
    Hostile("a field of two lines", {"headers": {"X": "a\r\nb: c\x01"}}, echo=False),
    Hostile("no such status", {"status": 7}, echo=False),
    Hostile("less than nothing", {"raw": _HEAD + "Content-Length: -1\r\n\r\nx"}, _OF_HTTP, echo=False),
    Hostile("an odd chunk", {"raw": _HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"}, _OF_HTTP, echo=False),
    Hostile("no end", _run("""
        write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        while True:
            write(b"10000\\r\\n" + bytes(65536) + b"\\r\\n")
            time.sleep(0.01)
        """), _OF_HTTP, echo=False),
    Hostile("no end of a head", _run("write(b'HTTP/1.1 200 OK\\r\\n')\nwhile True: write(b'X: y\\r\\n' * 1000)"),
            _OF_HTTP, echo=False),
    Hostile("no end of a text", _run("write(b'{\"body\":\"')\nwhile True: write(b'x' * 65536)"),
            ("json",), echo=False),
    Hostile("drops", _run("write(b'{\"body\":\"')\nwhile True:\n  write(b'x')\n  time.sleep(0.001)"),
            ("json",), echo=False),
    Hostile("an answer to a body that it does not read", {"unread": True}, _OF_HTTP, body=5_000_000),
    *[Hostile(f"two answers at once, {name}", {"surplus": text}, (name,)) for name, text in _STOLEN.items()],
    *[Hostile(f"two answers, {name}", {"again": text}, (name,)) for name, text in _STOLEN.items()],
    Hostile("an answer of nobody's, http", {"raw": "HTTP/1.1 500 X\r\n\r\n" * 2}, _OF_HTTP, echo=False),
    Hostile("an answer of nobody's, json", {"raw": '{"body":7}\n' * 2}, ("json",), echo=False),
)  # fmt: skip

_STREAM: Final = ("http-stream",)
_CONNECTIONS: Final = (
    Hostile("a status of no kit", {"wire_status": 418}, _STREAM, echo=False),
    Hostile("an error of its kit", {"wire_status": 502}, _STREAM, echo=False),
    Hostile("closes the connection", _run("connection.shutdown(2)"), _STREAM, echo=False),
    Hostile("an answer without an end", {"no_length": True, "close_after": True}, _STREAM),
    Hostile("removes its socket", _run("os.unlink(os.environ['FN_LISTENER'][5:])"), _STREAM),
    Hostile("changes its socket for a link", _run("""
        path = os.environ["FN_LISTENER"][5:]
        os.unlink(path)
        os.symlink("/var/run/docker.sock", path)
        """), _STREAM),
    Hostile("fills its folder", _run("""
        try:
            with open(os.path.dirname(os.environ["FN_LISTENER"][5:]) + "/filler", "wb") as file:
                for _ in range(40):
                    file.write(bytes(1 << 20))
        except OSError:
            pass
        """), _STREAM),
    Hostile("a child that holds its connection", _run("""
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        """), _STREAM),
    Hostile("noise on stdout", _run("os.write(1, b'x' * 3_000_000)"), _STREAM),
)  # fmt: skip

_RESOURCES: Final = (
    Hostile("fork bomb", _run("""
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.1)
        """), echo=False),
    Hostile("thread bomb", _run("""
        import threading
        while True:
            try:
                threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            except RuntimeError:
                break
        """)),
    Hostile("descriptor bomb", _run("""
        try:
            while True:
                hog.append(os.pipe())
        except OSError:
            pass
        """)),
    Hostile("memory bomb", _run("while True: hog.append(b'x' * (1 << 20))"), echo=False),
    Hostile("file system filler", _run("""
        for folder in ("/tmp", "/dev/shm", "."):
            try:
                with open(folder + "/filler", "wb") as file:
                    for _ in range(100):
                        file.write(bytes(1 << 20))
            except OSError:
                pass
        """)),
    Hostile("many files", _run("""
        try:
            for number in range(5000):
                open(f"/tmp/{number}", "w").close()
        except OSError:
            pass
        """)),
    Hostile("daemon", _run("""
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(0)
        """)),
    Hostile("daemon without pipes", _run("""
        if os.fork() == 0:
            os.setsid()
            for stream in (0, 1, 2):
                os.close(stream)
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(0)
        """)),
    Hostile("noise", {"stderr": 10_000_000}),
    Hostile("noise between calls", _run("""
        import threading
        threading.Timer(0.02, os.write, (2, b"noise\\n" * 200_000)).start()
        """)),
    Hostile("noise without lines", _run("os.write(2, b'x' * 3_000_000)")),
)  # fmt: skip

HOSTILE: Final = (*_ENDS, *_ANSWERS, *_CONNECTIONS, *_RESOURCES)
#: A second answer, written while another call of the same function may be running: the format cannot tell it from that
#: call's answer. It may reach that function's own callers, and nobody else.
LATER: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    name: ({"later": text, "later_ms": 30, "echo": "stolen"}, {"again": text, "echo": "stolen"})
    for name, text in _STOLEN.items()
}

#: Orders for ``crowd.py``: harm that one of several calls does to its container.
CROWDED: Final[tuple[dict[str, Any], ...]] = (
    *({"status": 500}, {"half": True}, {"hang_up": True}, {"twice": True}, {"late_ms": 3}, {"exit": 1}),
    *({"kill": True}, {"fork": True}, {"hold": True}),
)
