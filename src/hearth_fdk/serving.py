"""Serves a handler on stdin and stdout, in the format that ``FN_FORMAT`` names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from hearth_fdk.context import Answer, BadInput, Call, Context
from hearth_fdk.framing import HttpReader, JsonReader, cold_call, http_answer, json_answer
from hearth_fdk.invoking import Invoker, encode

_PIECE = 65536
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class _Reader(Protocol):
    def feed(self, data: bytes) -> list[Call]: ...

    @property
    def is_idle(self) -> bool: ...


_Writer = Callable[[int, Mapping[str, list[str]], bytes, str], bytes]
_FORMATS: Mapping[str, tuple[Callable[[], _Reader], _Writer]] = {
    "json": (JsonReader, json_answer),
    "http": (HttpReader, http_answer),
}


class Runner:
    """Runs calls of one handler one after another; async handlers all on one event loop, until it is left."""

    def __init__(self, handler: Callable[..., Any], config: Mapping[str, str]) -> None:
        self._invoke = Invoker(handler, config)
        self._complete: Callable[[Coroutine[Any, Any, Any]], Any] | None = None
        self._close: Callable[[], None] = lambda: None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def answer(self, call: Call) -> tuple[int, dict[str, list[str]], bytes]:
        """Status, headers and body; whatever the handler does, there is an answer."""
        try:
            return self.result(call)
        except BadInput as exc:
            return _error(400, str(exc))
        except Exception:
            print(told(call.call_id), file=sys.stderr, flush=True)
            return _error(500, "the function failed; its log says why")

    def result(self, call: Call) -> tuple[int, dict[str, list[str]], bytes]:
        """The same, but what the handler raises is raised."""
        context = self._invoke.context(call)
        value = self._invoke(context)
        if self._invoke.is_async:
            value = self._await(value)
        return _finish(context, value)

    def _await(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        if self._complete is None:
            import asyncio  # takes longer than all the rest: only for those who need it

            self._complete = asyncio.run
            if hasattr(asyncio, "Runner"):  # Python 3.11
                loop = asyncio.Runner()
                self._complete, self._close = loop.run, loop.close
        return self._complete(waiting)


def run(handler: Callable[..., Any]) -> None:
    """Serve a handler until the platform closes stdin; returns then.

    What the program prints goes to its log: stdout belongs to the answers. What it reads is empty: stdin belongs to the
    calls. Both hold for child processes and C libraries, too.
    """
    environment = dict(os.environ)
    calls, out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _set_up_logging()
    name = environment.get("FN_FORMAT", "") or "default"
    with Runner(handler, environment) as runner:
        if name == "default":
            _serve_once(runner, environment, calls, out)
        elif name in _FORMATS:
            reader, write = _FORMATS[name]
            _serve(runner, reader(), write, calls, out)
        else:
            sys.exit(f"FN_FORMAT={name}: hearth_fdk speaks default, json and http")


def _serve(runner: Runner, reader: _Reader, write: _Writer, calls: int, out: int) -> None:
    while piece := os.read(calls, _PIECE):
        for call in reader.feed(piece):
            _write_all(out, _framed(runner.answer(call), call.method, write))
    if not reader.is_idle:
        sys.exit("stdin ended in the middle of a call")


def _framed(answer: tuple[int, dict[str, list[str]], bytes], method: str, write: _Writer) -> bytes:
    try:
        return write(*answer, method)
    except UnicodeDecodeError:
        print(
            "the answer is not UTF-8, which the format json cannot carry; use format: http", file=sys.stderr, flush=True
        )
        return write(*_error(500, "the function failed; its log says why"), method)


def _serve_once(runner: Runner, environment: Mapping[str, str], calls: int, out: int) -> None:
    pieces = []
    while piece := os.read(calls, _PIECE):
        pieces.append(piece)
    call = cold_call(environment, b"".join(pieces))
    try:
        status, _, body = runner.result(call)
    except Exception:
        print(told(call.call_id), file=sys.stderr, flush=True)
        sys.exit(1)
    if status != 200:
        print(f"status {status} is lost: the format default cannot carry one", file=sys.stderr, flush=True)
    _write_all(out, body)


def _write_all(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _finish(context: Context, value: Any) -> tuple[int, dict[str, list[str]], bytes]:
    answer = context.complete(value if isinstance(value, Answer) else Answer(value))
    body, content_type = encode(answer.body)
    if not any(name.lower() == "content-type" for name in answer.headers):
        answer.headers["Content-Type"] = [content_type]
    _check_head(answer)
    return answer.status, answer.headers, body


def _check_head(answer: Answer) -> None:
    if answer.status not in range(200, 1000):
        raise ValueError(f"{answer.status!r} is no status: 200 to 999")
    for name, values in answer.headers.items():
        if not _NAME.fullmatch(name) or not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in values):
            raise ValueError(f"{name}: {', '.join(map(repr, values))} is no header: a word, and a line of text")


def _error(status: int, message: str) -> tuple[int, dict[str, list[str]], bytes]:
    body, content_type = encode({"error": {"message": message}})
    return status, {"Content-Type": [content_type]}, body


def told(call_id: str = "") -> str:
    """The traceback of the exception that is being handled, without the frames of this package."""
    exc = sys.exc_info()[1]
    assert exc is not None
    trace = exc.__traceback__
    here = os.path.dirname(__file__)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(here):
        trace = trace.tb_next
    import traceback  # only what fails pays for it

    text = "".join(traceback.format_exception(type(exc), exc, trace))
    return f"call {call_id} failed\n{text}" if call_id else text


def _set_up_logging() -> None:
    """Whoever uses ``logging`` finds it set up; who does not, does not pay for it."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.basicConfig(
            stream=sys.stderr,
            level=os.environ.get("LOG_LEVEL", "INFO").upper(),
            format="%(levelname)s %(name)s %(message)s",
        )
