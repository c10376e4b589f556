"""Engines that hang, die and come back."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.support.docker_images import python_image
from tests.support.engine import PrivateEngine, private_engine

from hearth.drivers.base import ContainerSpec, OutOfTime, PhaseLimits, StreamClosed
from hearth.drivers.docker.driver import INSTANCE_LABEL, NODE_LABEL, DockerDriver
from hearth.models.ids import encode

PROBE = Path(__file__).parent.parent / "functions" / "probe.py"
#: Long enough for an Engine that answers, however slow the machine.
SHORT = PhaseLimits(create_s=5.0, start_s=5.0, remove_s=5.0)
_numbers = itertools.count(os.getpid() << 32)


@pytest.fixture(scope="module")
def engine(docker: None) -> Iterator[PrivateEngine]:
    with private_engine() as private:
        private.copy_image(python_image(PROBE))
        yield private


@pytest.fixture
async def open_driver(engine: PrivateEngine) -> AsyncIterator[Callable[..., Awaitable[DockerDriver]]]:
    opened: list[DockerDriver] = []

    async def make(**options: object) -> DockerDriver:
        names = {"node": "n", "instance": "now", **options}
        driver = DockerDriver(engine.host, **names)  # type: ignore[arg-type]
        opened.append(driver)
        await driver.open()
        return driver

    yield make
    for driver in opened:
        await driver.close()
    assert engine.docker("ps", "-aq").stdout == b""


def spec(probe: str = "echo") -> ContainerSpec:
    return ContainerSpec(id=encode(next(_numbers)), image=python_image(PROBE), env={"PROBE": probe}, memory_mib=64)


async def echoes(driver: DockerDriver) -> bool:
    """Whether a new container works from its start to its end."""
    container = await driver.prepare(spec())
    await container.start()
    await container.channel.stdin.write(b"hello")
    container.channel.stdin.close()
    answer = await container.channel.stdout.read()
    await container.remove()
    return answer == b"hello"


async def test_an_engine_that_hangs_costs_the_limit_of_each_phase(engine: PrivateEngine, open_driver) -> None:
    driver = await open_driver(limits=SHORT)
    prepared, removed, killed = [await driver.prepare(spec()) for _ in range(3)]
    await removed.start()
    await killed.start()
    with engine.stopped():
        acts = {
            "create": driver.prepare(spec()),
            "start": prepared.start(),
            "remove": removed.remove(),
            "kill": killed.kill(),
        }
        late = await asyncio.gather(*acts.values(), return_exceptions=True)
    phases = [error.phase for error in late if isinstance(error, OutOfTime)]
    assert phases == ["create", "start", "remove", "remove"]
    assert await echoes(driver)
    await asyncio.gather(prepared.remove(), removed.remove(), killed.remove())
    assert removed.exited is not None


async def test_samples_go_on_after_an_engine_hung(engine: PrivateEngine, open_driver) -> None:
    driver = await open_driver()
    container = await driver.prepare(spec())
    await container.start()
    samples = container.stats()
    first = await anext(samples)
    with engine.stopped():
        waiting = asyncio.ensure_future(anext(samples))
        await asyncio.wait([waiting], timeout=0.2)
    second = await waiting
    if second.timestamp == first.timestamp:
        second = await anext(samples)
    assert second.timestamp > first.timestamp
    await container.remove()
    async for _ in samples:  # ends with the container
        pass


async def test_an_engine_that_dies_ends_its_containers_and_comes_back(engine: PrivateEngine, open_driver) -> None:
    driver = await open_driver()
    containers = [await driver.prepare(spec()) for _ in range(3)]
    await asyncio.gather(*[container.start() for container in containers])
    reading = asyncio.ensure_future(containers[0].channel.stdout.read())
    engine.kill()
    try:
        assert await reading == b""
        ends = await asyncio.gather(*[container.wait() for container in containers])
        assert all(end.code == 137 and end.error.startswith("lost") and not end.oom for end in ends)
        with pytest.raises(StreamClosed):
            await containers[0].channel.stdin.write(b"x")
        removals = [asyncio.ensure_future(container.remove()) for container in containers]
        new = asyncio.ensure_future(echoes(driver))
        await asyncio.wait([new], timeout=0.2)
        assert not new.done()  # it waits for the Engine
    finally:
        await asyncio.to_thread(engine.start)
    assert await new
    await asyncio.gather(*removals)


async def test_leftovers_of_the_same_node_are_removed_in_the_background(engine: PrivateEngine, open_driver) -> None:
    def leave(node: str, instance: str) -> str:
        labels = [f"--label={NODE_LABEL}={node}", f"--label={INSTANCE_LABEL}={instance}"]
        made = engine.docker("create", "--network=none", *labels, python_image(PROBE))
        assert made.returncode == 0, made.stderr
        return made.stdout.decode().strip()

    mine = [leave("n", "earlier") for _ in range(6)]
    kept = {leave("other", "earlier"), leave("n", "now")}
    driver = await open_driver()
    await driver.close()  # it finishes what it is removing
    left = set(engine.docker("ps", "-aq", "--no-trunc").stdout.decode().split())
    engine.docker("rm", "-f", *left)
    assert left == kept
    assert not left & set(mine)


async def test_a_container_whose_maker_left_is_removed(engine: PrivateEngine, open_driver) -> None:
    driver = await open_driver()
    for delay_s in (0.0, 0.001, 0.005, 0.02, 0.05):
        making = asyncio.ensure_future(driver.prepare(spec()))
        done, _ = await asyncio.wait([making], timeout=delay_s)
        if done:
            await making.result().remove()
            continue
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    await driver.close()
    assert engine.docker("ps", "-aq").stdout == b""
