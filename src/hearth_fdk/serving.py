"""Serves a handler in the format that ``FN_FORMAT`` names: on stdin and stdout, or on a socket."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

from hearth_fdk.context import Answer, BadInput, Call, Context
from hearth_fdk.framing import (
    HttpReader,
    JsonReader,
    cold_call,
    http_answer,
    http_chunk,
    http_stream_head,
    json_answer,
)
from hearth_fdk.invoking import JSON, Invoker, encode

_PIECE = 65536
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


Head = tuple[int, dict[str, list[str]]]
#: Status, headers, and the whole body.
Reply = tuple[int, dict[str, list[str]], bytes]


class _Reader(Protocol):
    def feed(self, data: bytes) -> list[Call]: ...

    @property
    def is_idle(self) -> bool: ...


class Output(Protocol):
    """The receiver of answers: either one whole answer, or its head, its pieces and its end."""

    def whole(self, reply: Reply, method: str) -> None:
        """Write a whole answer."""

    def begin(self, head: Head, method: str) -> bool:
        """Write the head of an answer; return whether a body may follow."""

    def piece(self, data: bytes) -> None:
        """Write a piece of the body; waits while nobody takes it."""

    def end(self) -> None:
        """Write the end of the body."""

    def broken(self, reply: Reply, method: str) -> None:
        """End an answer that has started and cannot be finished."""


class AsyncOutput(Protocol):
    """The way of an answer on an event loop: it takes all at once, and says when it has taken enough."""

    async def drain(self) -> None:
        """Wait while nobody takes what was written."""


class StreamBroken(SystemExit):
    """A stream failed after its head was sent: the end of the program is all that tells the client."""


class Runner:
    """Runs calls of one handler one after another; async handlers all on one event loop, until it is left."""

    def __init__(self, handler: Callable[..., Any], config: Mapping[str, str]) -> None:
        self._handler, self._config = handler, config
        self._invoke = Invoker(handler, config)
        self._complete: Callable[[Coroutine[Any, Any, Any]], Any] | None = None
        self._close: Callable[[], None] = lambda: None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    @property
    def is_async(self) -> bool:
        """True if the handler is."""
        return self._invoke.is_async

    def another(self) -> Runner:
        """Return a runner of the same handler, for another thread."""
        return Runner(self._handler, self._config)

    def answer(self, call: Call, output: Output) -> None:
        """Answer a call; whatever the handler does, there is an answer, or the program ends."""
        try:
            self.run(call, output)
        except Exception as exc:
            _fail(call, output, exc)

    async def answer_async(self, call: Call, output: Output, way: AsyncOutput) -> None:
        """Answer a call of an async handler on the present event loop, beside others."""
        try:
            context = self._invoke.context(call)
            value = await self._invoke(context)
            answer = value if isinstance(value, Answer) else Answer(value)
            if hasattr(answer.body, "__anext__") or hasattr(answer.body, "__next__"):
                await _pour(answer.body, _Stream(context, answer, output, call.method), way)
            else:
                body, content_type = encode(answer.body)
                output.whole((*_head(context, answer, content_type), body), call.method)
        except Exception as exc:
            _fail(call, output, exc)

    def run(self, call: Call, output: Output) -> None:
        """Answer a call; what the handler raises is raised.

        Raises:
            StreamFailed: The handler raised after its answer had started; its error is the cause.
        """
        context = self._invoke.context(call)
        value = self._invoke(context)
        if self._invoke.is_async:
            value = self._await(value)
        answer = value if isinstance(value, Answer) else Answer(value)
        if hasattr(answer.body, "__anext__"):
            self._await(_pump(answer.body, _Stream(context, answer, output, call.method)))
        elif hasattr(answer.body, "__next__"):
            _drain(answer.body, _Stream(context, answer, output, call.method))
        else:
            body, content_type = encode(answer.body)
            output.whole((*_head(context, answer, content_type), body), call.method)

    def _await(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        if self._complete is None:
            import asyncio  # takes longer than all the rest: only for those who need it

            self._complete = asyncio.run
            if hasattr(asyncio, "Runner"):  # Python 3.11
                loop = asyncio.Runner()
                self._complete, self._close = loop.run, loop.close
        return self._complete(waiting)


class StreamFailed(Exception):
    """A handler raised in the middle of its answer."""


class _Stream:
    """An answer that is written while its handler makes it. Its head is written with the first piece."""

    def __init__(self, context: Context, answer: Answer, output: Output, method: str) -> None:
        self._context = context
        self._answer = answer
        self._output = output
        self._method = method
        self._may_go_on = True
        self.is_started = False

    def send(self, item: Any) -> bool:
        """Write one piece; return whether another one is wanted."""
        data, content_type = encode(item)
        if content_type == JSON:
            data, content_type = data + b"\n", "application/x-ndjson"
        self._begin(content_type)
        if data and self._may_go_on:
            self._output.piece(data)
        return self._may_go_on

    def end(self) -> None:
        """Write the end; of a stream without pieces, the head first."""
        self._begin("text/plain; charset=utf-8")
        if self._may_go_on:
            self._output.end()

    def _begin(self, content_type: str) -> None:
        if not self.is_started:
            head = _head(self._context, self._answer, content_type)
            self.is_started = True
            self._may_go_on = self._output.begin(head, self._method)


def _drain(items: Iterator[Any], stream: _Stream) -> None:
    """Write what a generator yields. It is closed when the client has gone, or nobody wants its pieces."""
    try:
        for item in items:
            if not stream.send(item):
                break
        stream.end()
    except Exception as exc:
        if stream.is_started:
            raise StreamFailed from exc
        raise
    finally:
        if close := getattr(items, "close", None):
            close()


async def _pump(items: AsyncIterator[Any], stream: _Stream) -> None:
    """Do the same for an async generator: in one task, while other tasks of the handler go on."""
    import asyncio

    loop = asyncio.get_running_loop()
    try:
        async for item in items:
            if not await loop.run_in_executor(None, stream.send, item):
                break
        stream.end()
    except Exception as exc:
        if stream.is_started:
            raise StreamFailed from exc
        raise
    finally:
        if close := getattr(items, "aclose", None):
            await close()


async def _pour(items: Any, stream: _Stream, way: AsyncOutput) -> None:
    """Write what a generator yields on the present event loop, as fast as it is taken."""
    try:
        if hasattr(items, "__anext__"):
            async for item in items:
                if not stream.send(item):
                    break
                await way.drain()
        else:
            for item in items:
                if not stream.send(item):
                    break
                await way.drain()
        stream.end()
    except Exception as exc:
        if stream.is_started:
            raise StreamFailed from exc
        raise
    finally:
        if close := getattr(items, "aclose", None):
            await close()
        elif close := getattr(items, "close", None):
            close()


def _fail(call: Call, output: Output, exc: Exception) -> None:
    """Answer a call whose handler failed, and log why."""
    if isinstance(exc, StreamFailed):
        print(told(call.call_id, exc.__cause__), file=sys.stderr, flush=True)
        output.broken(_error(500, "the function failed; its log says why"), call.method)
    elif isinstance(exc, BadInput):
        output.whole(_error(400, str(exc)), call.method)
    else:
        print(told(call.call_id, exc), file=sys.stderr, flush=True)
        output.whole(_error(500, "the function failed; its log says why"), call.method)


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
    name = environment.get("FN_FORMAT", "") or "default"
    if name == "http-stream" and environment.get("FN_CONCURRENCY", "1") != "1":
        from hearth_fdk import sharing  # only for those who need it

        sharing.mark_lines(environment)
    _set_up_logging()
    try:
        runner = Runner(handler, environment)
    except TypeError as exc:
        code = getattr(handler, "__code__", None)
        sys.exit(f"{code.co_filename}:{code.co_firstlineno}: {exc}" if code else str(exc))
    with runner:
        if name == "default":
            _serve_once(runner, environment, calls, out)
        elif name == "json":
            _serve(runner, JsonReader(), JsonOutput(out), calls)
        elif name == "http":
            _serve(runner, HttpReader(), HttpOutput(out), calls)
        elif name == "http-stream":
            from hearth_fdk import listening  # only for those who need sockets

            listening.serve(runner, environment)
        else:
            sys.exit(f"FN_FORMAT={name}: hearth_fdk speaks default, json, http and http-stream")


def _serve(runner: Runner, reader: _Reader, output: Output, calls: int) -> None:
    while piece := os.read(calls, _PIECE):
        for call in reader.feed(piece):
            runner.answer(call, output)
    if not reader.is_idle:
        sys.exit("stdin ended in the middle of a call")


class HttpOutput:
    """Answers in the format ``http``."""

    def __init__(self, out: int) -> None:
        self._out = out

    def whole(self, reply: Reply, method: str) -> None:
        """Write a whole answer."""
        _write_all(self._out, http_answer(*reply, method))

    def begin(self, head: Head, method: str) -> bool:
        """Write the head of an answer; return whether a body may follow."""
        data, has_body = http_stream_head(*head, method)
        _write_all(self._out, data)
        return has_body

    def piece(self, data: bytes) -> None:
        """Write a piece of the body."""
        _write_all(self._out, http_chunk(data))

    def end(self) -> None:
        """Write the end of the body."""
        _write_all(self._out, http_chunk(b""))

    def broken(self, reply: Reply, method: str) -> None:
        """End the program: an end of the body would say that it is whole."""
        raise StreamBroken(1)


class JsonOutput:
    """Answers in the format ``json``, which holds them whole: pieces are put together."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._started: tuple[Head, str] | None = None
        self._pieces: list[bytes] = []

    def whole(self, reply: Reply, method: str) -> None:
        """Write a whole answer."""
        try:
            data = json_answer(*reply, method)
        except UnicodeDecodeError:
            print(
                "the answer is not UTF-8, which the format json cannot carry; use format: http",
                file=sys.stderr,
                flush=True,
            )
            data = json_answer(*_error(500, "the function failed; its log says why"), method)
        _write_all(self._out, data)

    def begin(self, head: Head, method: str) -> bool:
        """Keep the head until the body is whole."""
        self._started = head, method
        self._pieces.clear()
        return method != "HEAD"

    def piece(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._pieces.append(data)

    def end(self) -> None:
        """Write the whole answer."""
        assert self._started is not None
        head, method = self._started
        self.whole((*head, b"".join(self._pieces)), method)

    def broken(self, reply: Reply, method: str) -> None:
        """Answer with the error: nothing was written."""
        self.whole(reply, method)


class _ColdOutput:
    """The answer in the format ``default``: nothing but its body."""

    def __init__(self, out: int) -> None:
        self._out = out

    def whole(self, reply: Reply, method: str) -> None:
        self.begin(reply[:2], method)
        _write_all(self._out, reply[2])

    def begin(self, head: Head, method: str) -> bool:
        if head[0] != 200:
            message = f"status {head[0]} is lost: the format default cannot carry one"
            print(message, file=sys.stderr, flush=True)
        return True

    def piece(self, data: bytes) -> None:
        _write_all(self._out, data)

    def end(self) -> None:
        pass

    def broken(self, reply: Reply, method: str) -> None:
        raise StreamBroken(1)


def _serve_once(runner: Runner, environment: Mapping[str, str], calls: int, out: int) -> None:
    pieces = []
    while piece := os.read(calls, _PIECE):
        pieces.append(piece)
    call = cold_call(environment, b"".join(pieces))
    try:
        runner.run(call, _ColdOutput(out))
    except StreamFailed as exc:
        print(told(call.call_id, exc.__cause__), file=sys.stderr, flush=True)
        sys.exit(1)
    except Exception:
        print(told(call.call_id), file=sys.stderr, flush=True)
        sys.exit(1)


def _write_all(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _head(context: Context, answer: Answer, content_type: str) -> Head:
    context.complete(answer)
    if not any(name.lower() == "content-type" for name in answer.headers):
        answer.headers["Content-Type"] = [content_type]
    _check_head(answer)
    return answer.status, answer.headers


def _check_head(answer: Answer) -> None:
    if answer.status not in range(200, 1000):
        raise ValueError(f"{answer.status!r} is no status: 200 to 999")
    for name, values in answer.headers.items():
        if not _NAME.fullmatch(name) or not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in values):
            raise ValueError(f"{name}: {', '.join(map(repr, values))} is no header: a word, and a line of text")


def _error(status: int, message: str) -> Reply:
    body, content_type = encode({"error": {"message": message}})
    return status, {"Content-Type": [content_type]}, body


def told(call_id: str = "", exc: BaseException | None = None) -> str:
    """Return the traceback of an exception, or of the one that is being handled, without the frames of this package."""
    exc = exc or sys.exc_info()[1]
    assert exc is not None
    trace = exc.__traceback__
    here = os.path.dirname(__file__)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(here):
        trace = trace.tb_next
    import traceback  # only what fails pays for it

    text = "".join(traceback.format_exception(type(exc), exc, trace))
    return f"call {call_id} failed\n{text}" if call_id else text


def _set_up_logging() -> None:
    """Set up ``logging`` for functions that use it; others do not pay for it."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.basicConfig(
            stream=sys.stderr,
            level=os.environ.get("LOG_LEVEL", "INFO").upper(),
            format="%(levelname)s %(name)s %(message)s",
        )
