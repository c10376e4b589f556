"""Whatever happens in a container's life, nothing is left of it (drivers specification 4)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.support.driver_bench import NODE, Bench, spec, until

from hearth.drivers.base import Container, ImageError, ImageNotFound, StartFailed, StreamClosed

DOOMED = Path(__file__).parents[2] / "support" / "doomed_server.py"


async def test_fifty_prepares_of_a_missing_image_all_fail(bench: Bench) -> None:
    results = await asyncio.gather(
        *[bench.prepare("echo", image=bench.missing) for _ in range(50)], return_exceptions=True
    )
    assert [result for result in results if not isinstance(result, ImageNotFound | ImageError)] == []
    assert bench.left() == []


async def start_fault(container: Container) -> str:
    """Why the image's program cannot be executed; some backends tell when the container has ended."""
    try:
        await container.start()
    except StartFailed as failed:
        return failed.reason if failed.image_fault else ""
    return (await container.wait()).start_fault


async def test_a_command_that_cannot_run_is_the_images_fault(bench: Bench) -> None:
    for image in bench.broken:
        container = await bench.prepare("echo", image=image)
        assert (await start_fault(container)).endswith(("no such file or directory", "permission denied"))
        await container.remove()
    assert bench.left() == []


async def test_removal_works_in_every_phase_and_twice(bench: Bench) -> None:
    prepared, running, ended = await bench.prepare("sleep"), await bench.start("sleep"), await bench.start("exit-0")
    await ended.wait()
    for container in (prepared, running, ended):
        await container.kill()
        await container.kill()
        await asyncio.gather(container.remove(), container.remove())
        await container.remove()
        await container.kill()
        assert container.exited is not None
        assert await container.wait() == container.exited
    assert bench.left() == []
    with pytest.raises(StreamClosed):
        await running.channel.stdin.write(b"x")


async def test_kill_and_remove_may_meet_the_exit(bench: Bench) -> None:
    for _ in range(5):
        container = await bench.start("echo")
        container.channel.stdin.close()  # it ends while it is killed
        await asyncio.gather(container.kill(), container.remove(), container.wait(), container.kill())
        assert container.exited is not None
    assert bench.left() == []


async def test_a_removal_whose_caller_leaves_goes_on(bench: Bench) -> None:
    container = await bench.start("sleep")
    removing = asyncio.ensure_future(container.remove())
    await asyncio.sleep(0)
    removing.cancel()
    await until(lambda: bench.left() == [])
    await container.remove()


async def test_what_was_removed_does_not_start(bench: Bench) -> None:
    container = await bench.prepare("sleep")
    await container.remove()
    with pytest.raises(StartFailed):
        await container.start()
    assert bench.left() == []


class CancelAt:
    """Runs a coroutine and cancels its task when it suspends for the n-th time."""

    def __init__(self, work: Coroutine[Any, Any, None], number: int) -> None:
        self._work = work
        self._number = number

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        task = asyncio.current_task()
        assert task is not None
        result = None
        for count in range(1, sys.maxsize):
            try:
                waited_for = steps.send(result)
            except StopIteration:
                return
            if count == self._number:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                result = yield waited_for
            except asyncio.CancelledError as exc:
                yield from _rethrow(steps, exc)
                return


def _rethrow(steps: Generator[Any, Any, None], exc: BaseException) -> Generator[Any, Any, None]:
    """Let the cancelled coroutine clean up; not cancelled again."""
    try:
        waited_for = steps.throw(exc)
        while True:
            waited_for = steps.send((yield waited_for))
    except StopIteration:
        return


async def test_cancelled_at_any_suspension_nothing_is_left(bench: Bench) -> None:
    async def live() -> None:
        container = await bench.prepare("sleep")
        try:
            await container.start()
        finally:
            await container.remove()

    async def cancelled(number: int) -> bool:
        task = asyncio.ensure_future(_awaited(CancelAt(live(), number)))
        await asyncio.wait([task])
        await until(lambda: bench.left() == [])
        return task.cancelled()

    number = 1
    while await cancelled(number):
        number += 1
    assert bench.left() == []


async def _awaited(work: CancelAt) -> None:
    await work


async def test_nothing_is_left_of_a_server_that_was_killed(bench: Bench, tmp_path: Path) -> None:
    if bench.image == "probe":
        pytest.skip("the fake's containers are the server's own memory")
    node = f"{NODE}-doomed"
    command = [sys.executable, str(DOOMED), bench.name, str(tmp_path), node, bench.image]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        started = await asyncio.to_thread(server.stderr.readline)
        server.kill()
    marks = started.decode().split()
    assert len(marks) == 3, started
    if bench.dies_with_the_server:
        await until(lambda: bench.alive(marks) == [])
    successor = bench.another(node, "next")
    await successor.open()
    await until(lambda: bench.left(node, marks) == [])
    await successor.close()


async def test_two_nodes_do_not_touch_each_other(bench: Bench) -> None:
    neighbours = bench.another(f"{NODE}-a", "one"), bench.another(f"{NODE}-b", "one")
    for driver in neighbours:
        await driver.open()
    containers = [await driver.prepare(spec(bench.image, "echo")) for driver in neighbours]
    for container in containers:
        await container.start()
    second_run = bench.another(f"{NODE}-b", "two")
    await second_run.open()
    await containers[0].channel.stdin.write(b"alive")
    assert await containers[0].channel.stdout.read() == b"alive"
    if bench.image != "probe":
        await containers[1].wait()  # a leftover for its own node
    for container in containers:
        await container.remove()
    for driver in (*neighbours, second_run):
        await driver.close()
