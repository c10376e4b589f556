"""Cold starts: a call that needs a container of its own, against the function's own start.

One and the other in turn, in changing order, each with the machine to itself: the container of the one is gone before
the other begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node
from tests.support.waiting import until

from bench.figures import Figures
from bench.limits import http_message
from bench.load import BODY
from hearth.aio.clock import SystemClock
from hearth.drivers.base import ContainerSpec
from hearth.drivers.docker.creation import Creation, Walls
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.streams import Attachment
from hearth.drivers.local.stored import interpreter

_ENGINE: Final = "unix:///var/run/docker.sock"
_MEMORY_MIB: Final = 64
#: What the function reads of one call. One of the format ``default`` ends its container, one of ``http`` does not.
_MESSAGES: Final = {"default": BODY.encode(), "http": http_message(BODY.encode())}


class _Alone(Protocol):
    """The function without a platform."""

    def run(self, format_name: str) -> dict[str, float]:
        """Start it and send it a call; milliseconds until what."""

    def is_quiet(self) -> bool:
        """Whether no container of a call before is left."""


def cold(figures: Figures, driver: str, *, rounds: int) -> None:
    """Milliseconds of a cold call, and of the same function started without a platform."""
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = python_image(MULTI) if driver == "docker" else build_multi(data, data / "source")
        node = stack.enter_context(running_node(driver, data, image))
        alone: _Alone = stack.enter_context(_by_engine(image)) if driver == "docker" else _ByHand(node)
        for number, format_name in itertools.product(range(rounds + 1), _MESSAGES):
            samples = _turns(alone, node, format_name, call_first=number % 2 == 1)
            if number == 0:  # it finds nothing in the machine's caches
                continue
            name = f"{driver} {format_name}"
            for what, sample in sorted(samples.items()):
                figures.add("cold", f"{name} {what}", "ms", sample, against="" if what == "alone" else f"{name} alone")


def _turns(alone: _Alone, node: RunningNode, format_name: str, *, call_first: bool) -> dict[str, float]:
    samples: dict[str, float] = {}
    for is_call in (call_first, not call_first):
        samples |= _call(node, format_name) if is_call else alone.run(format_name)
        if not until(alone.is_quiet):
            raise SystemExit("bench: a container was not removed")
    return samples


def _call(node: RunningNode, format_name: str) -> dict[str, float]:
    """The first call of a new route. The route goes, and with it its container."""
    path = node.route("cold", format_name, memory=_MEMORY_MIB)
    begun = time.perf_counter()
    answer = node.http.post(path, content=BODY)
    taken = time.perf_counter() - begun
    node.http.delete("/v1/apps/e2e/routes/cold").raise_for_status()
    if answer.status_code != 200:
        raise SystemExit(f"bench: the cold call failed: {answer.text}")
    return {"call": taken * 1000}


class _ByHand:
    """The function's process, with nothing around it."""

    def __init__(self, node: RunningNode) -> None:
        self._threads = Path(f"/proc/{node.process.pid}/task")

    def run(self, format_name: str) -> dict[str, float]:
        """To its answer, or to its end where a cold call waits for that."""
        environment, pipe = {"FN_FORMAT": format_name}, subprocess.PIPE
        begun = time.perf_counter()
        with subprocess.Popen([interpreter(), MULTI], stdin=pipe, stdout=pipe, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(_MESSAGES[format_name])
            process.stdin.flush()
            if format_name == "default":
                process.stdin.close()
                process.wait()
            answered = process.stdout.read(1)
            taken = time.perf_counter() - begun
            process.kill()
        if not answered:
            raise SystemExit("bench: the process did not answer")
        return {"alone": taken * 1000}

    def is_quiet(self) -> bool:
        """Whether the node has no children."""
        return not any((thread / "children").read_text() for thread in self._threads.iterdir())


@contextlib.contextmanager
def _by_engine(image: str) -> Iterator[_ByEngine]:
    with asyncio.Runner() as runner:
        engine = runner.run(_connected())
        yield _ByEngine(runner, engine, image)
        runner.run(engine.close())


async def _connected() -> Engine:
    engine = Engine(_ENGINE, SystemClock())
    await engine.ping()
    return engine


class _ByEngine:
    """What ``docker run`` does: create, attach, start, on connections that are kept, within the walls of a node."""

    def __init__(self, runner: asyncio.Runner, engine: Engine, image: str) -> None:
        self._runner = runner
        self._engine = engine
        self._image = image
        self._ids = itertools.count(time.time_ns())
        self._creation = Creation(Walls(), "bench", {})

    def run(self, format_name: str) -> dict[str, float]:
        """To the first byte; where the function ends, also to the exit code, which a cold call has to know."""
        return self._runner.run(self._run(format_name))

    def is_quiet(self) -> bool:
        """Whether there is no container of the image."""
        filters = {"ancestor": [self._image]}
        return not self._runner.run(self._engine.docker.containers.list(all=True, filters=filters))

    async def _run(self, format_name: str) -> dict[str, float]:
        name, message = f"{next(self._ids):026d}", _MESSAGES[format_name]
        spec = ContainerSpec(id=name, image=self._image, env={"FN_FORMAT": format_name}, memory_mib=_MEMORY_MIB)
        form = self._creation.form(spec, self._image, "bridge")
        taken: dict[str, float] = {}
        begun = time.perf_counter()
        container = await self._engine.docker.containers.create(form, name=name)
        streams = Attachment()
        await streams.open(self._engine, container.id, "stdin=1&stdout=1&stderr=1")
        await container.start()
        await streams.write(message)
        if format_name == "default":
            streams.close()
        answered = await streams.output.read()
        taken["alone"] = (time.perf_counter() - begun) * 1000
        if format_name == "default":
            await container.wait()
            taken["alone, to its exit code"] = (time.perf_counter() - begun) * 1000
        streams.abort()
        await container.delete(force=True, v=True)
        if not answered:
            raise SystemExit("bench: the container did not answer")
        return taken
