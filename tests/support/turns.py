"""How long the event loop is held: the processor time of its longest turn.

A callback that puts itself into every turn reads the clock of the loop's own thread. What other programs or threads of
a busy machine take does not count, so the result can be asserted. While measuring, the loop never sleeps, unless the
callback rests between its looks: see :class:`Turns`.

For code of the test itself::

    async with measured_turns() as turns:
        ...
    turns.check()

For a whole node, with its listener, on a loop and thread of its own::

    with measured_node(data, FN_DRIVER="process") as node:
        httpx.post(f"{node.url}/v1/apps", ...)
        node.turns.check()
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

from hearth.aio.clock import SystemClock
from hearth.nodes.build import open_node
from hearth.nodes.ports import listen
from hearth.server.http.server import HttpServer
from hearth.settings import load

#: What no request may hold the loop for, seconds of processor time on a usual machine; see :func:`limit_s`.
LIMIT_S = 0.05
#: Seconds of processor time that a usual machine takes for the work of :func:`limit_s`.
_USUAL_S = 0.02
#: Seconds between two looks at a whole node: without a rest it would take a processor from the function that it calls.
_REST_S = 0.001


def limit_s() -> float:
    """Return :data:`LIMIT_S`, or more while the machine is slower than a usual one.

    The speed of a virtual machine that shares its processors changes by a factor of two within minutes. What holds a
    loop for longest is work like this: it makes and frees many small objects.
    """
    longest_s, text = 0.0, "[" + "{}," * 340_000 + "{}]"
    for _ in range(3):
        begun_s = time.thread_time()
        json.loads(text)
        longest_s = max(longest_s, time.thread_time() - begun_s)
    return LIMIT_S * max(1.0, longest_s / _USUAL_S)


class TurnTooLong(AssertionError):
    """One turn of the loop took longer than the limit."""


def up_to_thrice(test: Callable[..., None]) -> Callable[..., None]:
    """Repeat a test whose longest turn was too long: what our code does takes as long each time.

    Faults of pages and what the host of a virtual machine takes count as processor time, too, and do not repeat.
    """

    @functools.wraps(test)
    def repeated(*args: Any, **named: Any) -> None:
        for _ in range(2):
            with contextlib.suppress(TurnTooLong):
                return test(*args, **named)
        return test(*args, **named)

    return repeated


class Turns:
    """The turns of the running loop since :meth:`begin`.

    Args:
        rest_s: Time between two looks: a turn then counts for up to so much more than it took. With 0, each turn is
            looked at, and the loop never sleeps.
    """

    def __init__(self, rest_s: float = 0.0) -> None:
        self.longest_s = 0.0
        self.count = 0
        self.last_s = 0.0
        self._rest_s = rest_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.Handle | None = None

    def begin(self) -> None:
        """Measure from now on, what was measured is forgotten; on the loop's thread."""
        self.end()
        gc.collect()
        gc.freeze()  # as a node does once it has started: the collector is not to walk through the test's own objects
        self.longest_s, self.count = 0.0, 0
        self._loop = asyncio.get_running_loop()
        self.last_s = time.thread_time()
        self._handle = self._later()

    def end(self) -> None:
        """Measure no longer. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def check(self) -> None:
        """Fail if a turn took too long."""
        limit = limit_s()
        if self.longest_s >= limit:
            raise TurnTooLong(f"a turn took {self.longest_s:.3f} s of processor time, the limit is {limit:.3f} s")

    def _look(self) -> None:
        now_s = time.thread_time()
        self.longest_s = max(self.longest_s, now_s - self.last_s)
        self.count += 1
        self.last_s = now_s
        self._handle = self._later()

    def _later(self) -> asyncio.Handle:
        assert self._loop is not None
        return self._loop.call_later(self._rest_s, self._look) if self._rest_s else self._loop.call_soon(self._look)


@contextlib.asynccontextmanager
async def measured_turns() -> AsyncIterator[Turns]:
    """Measure the running loop."""
    turns = Turns()
    turns.begin()
    try:
        yield turns
    finally:
        await asyncio.sleep(0)  # the turn that ends here counts
        await asyncio.sleep(0)
        turns.end()


class MeasuredNode:
    """A node in this process, and the turns of its loop."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, turns: Turns) -> None:
        self.url = url
        self.turns = turns
        self._loop = loop

    @contextlib.contextmanager
    def measured(self) -> Iterator[Turns]:
        """Measure what the node does meanwhile."""
        self.on_loop(self.turns.begin)
        try:
            yield self.turns
        finally:
            self.on_loop(self.turns.end)

    def on_loop(self, act: Any) -> None:
        async def step() -> None:
            await asyncio.sleep(0)
            act()

        asyncio.run_coroutine_threadsafe(step(), self._loop).result()


@contextlib.contextmanager
def measured_node(data: Path, **environment: Any) -> Iterator[MeasuredNode]:
    """Run a node in a thread of this process; settings by the names of their fields."""
    settings = load(data_dir=data, port=0, bind="127.0.0.1", **environment)
    listener = listen(settings.bind or "127.0.0.1", 0)
    port = listener.getsockname()[1]
    started: threading.Event = threading.Event()
    made: dict[str, Any] = {}

    async def serve() -> None:
        made["loop"] = asyncio.get_running_loop()
        stop = made["stop"] = asyncio.Event()
        async with (
            HttpServer(SystemClock(), head_timeout_s=settings.header_timeout_s) as server,
            open_node(settings, port) as node,
        ):
            await server.listen([listener], node.app, node.calls)
            started.set()
            await stop.wait()
            await server.drain(60)

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as exc:
            made["failure"] = exc
            raise
        finally:
            started.set()

    thread = threading.Thread(target=run, name="measured-node")
    thread.start()
    started.wait()
    try:
        assert "failure" not in made, made["failure"]
        yield MeasuredNode(f"http://127.0.0.1:{port}", made["loop"], Turns(_REST_S))
    finally:
        if "stop" in made:
            made["loop"].call_soon_threadsafe(made["stop"].set)
        thread.join()
