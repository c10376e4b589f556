"""What every driver keeps its word on (drivers specification 4)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.docker_images import broken_image, python_image

from hearth.drivers.base import Container, ContainerSpec, Driver, ImageError, ImageNotFound, StartFailed, StreamClosed
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.process import bundle
from hearth.drivers.process.driver import ProcessDriver
from hearth.models.ids import encode

# A transport that the loop collects after the test is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

PROBE = Path(__file__).parent.parent / "functions" / "probe.py"
NODE = f"test-{os.getpid()}"
_numbers = itertools.count(os.getpid() << 32)


class Bench:
    """A driver and how to make containers with it."""

    def __init__(self, driver: Driver, image: str, missing: str) -> None:
        self.driver = driver
        self.image = image
        self.missing = missing
        self.made: list[Container] = []

    async def prepare(self, probe: str, memory_mib: int = 128, image: str | None = None, **env: str) -> Container:
        container = await self.driver.prepare(
            ContainerSpec(
                id=encode(next(_numbers)), image=image or self.image, env={"PROBE": probe, **env}, memory_mib=memory_mib
            )
        )
        self.made.append(container)
        return container

    async def start(self, probe: str, memory_mib: int = 128, **env: str) -> Container:
        container = await self.prepare(probe, memory_mib, **env)
        await container.start()
        return container


def _bundle(folder: Path) -> str:
    source = folder / "source"
    source.mkdir()
    (source / "func.py").write_bytes(PROBE.read_bytes())
    (source / "func.yaml").write_text("name: probe\nruntime: python\n")
    return bundle.build(source, folder / "bundles")[0]


@pytest.fixture(params=["process", "process without sandbox", "docker"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    driver: Driver
    if request.param == "docker":
        request.getfixturevalue("docker")
        driver = DockerDriver("unix:///var/run/docker.sock", node=NODE, instance="now")
        made = Bench(driver, python_image(PROBE), "localhost:1/none:1")
    else:
        driver = ProcessDriver(tmp_path / "bundles", NODE, sandboxed=request.param == "process")
        made = Bench(driver, _bundle(tmp_path), "none:1")
    await driver.open()
    yield made
    await asyncio.gather(*[container.remove() for container in made.made])
    await driver.close()


async def read_all(container: Container) -> bytes:
    chunks = []
    while chunk := await container.stdout.read():
        chunks.append(chunk)
    return b"".join(chunks)


async def feed(container: Container, data: bytes) -> None:
    for start in range(0, len(data), 65536):
        await container.stdin.write(data[start : start + 65536])
    container.stdin.close()


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 10 * 1024 * 1024])
async def test_what_goes_in_comes_back(bench: Bench, size: int) -> None:
    container = await bench.start("echo")
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    writing = asyncio.ensure_future(feed(container, data))
    assert await read_all(container) == data
    await writing
    assert (await container.wait()).code == 0


async def test_a_slow_reader_holds_the_function_back(bench: Bench) -> None:
    container = await bench.start("flood")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await container.wait()  # it cannot end: 10 MiB fit in no buffer
    stderr: list[bytes] = []
    container.stderr.watch(stderr.append)
    assert len(await read_all(container)) == 10 << 20
    assert (await container.wait()).code == 0
    assert len(b"".join(stderr)) == 10 << 20


async def test_early_output_is_kept(bench: Bench) -> None:
    container = await bench.start("early")
    await container.wait()
    assert await read_all(container) == b"early\n"


@pytest.mark.parametrize(("probe", "code"), [("exit-0", 0), ("exit-3", 3)])
async def test_exits_are_told_apart(bench: Bench, probe: str, code: int) -> None:
    container = await bench.start(probe)
    seen: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    container.on_exit(seen.set_result)
    ended = await container.wait()
    assert (ended.code, ended.oom) == (code, False)
    assert await seen == ended == container.exited


async def test_memory_beyond_the_limit_is_told(bench: Bench) -> None:
    container = await bench.start("allocate", memory_mib=64)
    ended = await container.wait()
    assert ended.code != 0
    assert ended.oom == bench.driver.capabilities.limits_memory


async def test_the_environment_is_exact(bench: Bench) -> None:
    env = {"NL": "a\nb", "EQ": "a=b=", "UNI": "grüße", "LONG": "x" * 100_000, "FN_HEADER_X-Id": "7"}
    container = await bench.start("env", **env)
    got = json.loads(await read_all(container))
    assert {name: got[name] for name in env} == env


async def test_a_missing_image_leaves_nothing(bench: Bench) -> None:
    results = await asyncio.gather(
        *[bench.prepare("echo", image=bench.missing) for _ in range(20)], return_exceptions=True
    )
    assert all(isinstance(result, ImageNotFound | ImageError) for result in results)
    assert bench.made == []


async def test_removal_works_in_every_phase_and_twice(bench: Bench) -> None:
    prepared, running, ended = await bench.prepare("sleep"), await bench.start("sleep"), await bench.start("exit-0")
    await ended.wait()
    for container in (prepared, running, ended):
        await container.kill()
        await asyncio.gather(container.remove(), container.remove())
        await container.remove()
    assert running.exited is not None
    with pytest.raises(StreamClosed):
        await running.stdin.write(b"x")


async def test_a_broken_entrypoint_is_the_images_fault(docker: None) -> None:
    driver = DockerDriver("unix:///var/run/docker.sock", node=NODE, instance="now")
    await driver.open()
    for image in (broken_image("/missing", 0), broken_image("/program", 0o644)):
        spec = ContainerSpec(id=encode(next(_numbers)), image=image, env={}, memory_mib=64)
        container = await driver.prepare(spec)
        with pytest.raises(StartFailed) as failed:
            await container.start()
        assert failed.value.image_fault
        await container.remove()
    await driver.close()


async def test_only_leftovers_of_the_same_node_are_removed(docker: None) -> None:
    def spec() -> ContainerSpec:
        return ContainerSpec(
            id=encode(next(_numbers)), image=python_image(PROBE), env={"PROBE": "sleep"}, memory_mib=64
        )

    host = "unix:///var/run/docker.sock"
    old, other = (DockerDriver(host, node=NODE + name, instance="old") for name in ("a", "b"))
    for driver in (old, other):
        await driver.open()
    left, theirs = await old.prepare(spec()), await other.prepare(spec())
    await left.start()
    await theirs.start()
    new = DockerDriver(host, node=NODE + "a", instance="new")
    await new.open()
    await left.wait()
    assert theirs.exited is None
    for container in (left, theirs):
        await container.remove()
    for driver in (old, other, new):
        await driver.close()
