"""Cold starts: a call that needs a container of its own, against the function's own start."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import aiodocker
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node

from bench.figures import Figures
from bench.load import BODY

#: That of bundles. Another one, such as this environment's, has other packages to look through in its start.
_PYTHON: Final = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")


def cold(figures: Figures, driver: str, *, rounds: int) -> None:
    """Milliseconds of a cold call, and of the same function started without a platform."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        image = python_image(MULTI) if driver == "docker" else build_multi(data, data / "source")
        with running_node(driver, data, image) as node:
            path = node.route("cold", "default", memory=64)
            alone, to_end = f"{driver} alone", f"{driver} alone, to its exit code"
            for _ in range(rounds + 1):
                if driver == "docker":
                    first_byte, whole = asyncio.run(_by_engine(image))
                    figures.add("cold", to_end, "ms", whole, against=alone)
                else:
                    first_byte = _own_start()
                figures.add("cold", alone, "ms", first_byte)
                figures.add("cold", f"{driver} call", "ms", _call(node, path), against=alone)
    for name in (alone, to_end, f"{driver} call"):
        if (figure := figures.find("cold", name, "ms", 0)) is not None:
            del figure.samples[0]  # the first finds nothing in the machine's caches


def _call(node: RunningNode, path: str) -> float:
    begun = time.perf_counter()
    answer = node.http.post(path, content=BODY)
    taken = time.perf_counter() - begun
    if answer.status_code != 200:
        raise SystemExit(f"bench: the cold call failed: {answer.text}")
    return taken * 1000


def _own_start() -> float:
    """The function's process, from its start to its answer."""
    begun = time.perf_counter()
    subprocess.run([_PYTHON, MULTI], input=BODY.encode(), stdout=subprocess.DEVNULL, env={}, check=True)
    return (time.perf_counter() - begun) * 1000


async def _by_engine(image: str) -> tuple[float, float]:
    """What the Engine takes for ``docker run --rm`` of the image: create, attach, start.

    Once to the first byte, and once to the exit code, which a cold call has to know before it may answer.
    """
    config = {"Image": image, "AttachStdout": True, "Env": ["BANNER=x"]}
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(aiodocker.Docker())
        begun = time.perf_counter()
        container = await engine.containers.create(config)
        stream = container.attach(stdout=True, stderr=True)
        async with stream:
            await container.start()
            answered = (await stream.read_out()) is not None
            taken = time.perf_counter() - begun
            ended = await container.wait()
            whole = time.perf_counter() - begun
        await container.delete(force=True)
        if not answered or ended["StatusCode"]:
            raise SystemExit("bench: the container did not answer")
    return taken * 1000, whole * 1000
