"""No way out of a container, whoever makes it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.driver_bench import DOCKER, NODE, Bench, make_bench, opened

from hearth.drivers.base import Container
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver


@pytest.fixture(params=["process", "process with images", "docker"])
async def walled(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A driver that has walls."""
    if request.param == "docker":
        request.getfixturevalue("docker")
    elif shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    async with opened(make_bench(request.param, tmp_path)) as bench:
        yield bench


async def told(container: Container) -> Any:
    chunks = []
    while chunk := await container.channel.stdout.read():
        chunks.append(chunk)
    assert (await container.wait()).code == 0, await container.stderr.read()
    return json.loads(b"".join(chunks))


@contextlib.contextmanager
def key_of_the_session(name: str) -> Iterator[None]:
    """A key where what this process starts finds it, too, if the kernel lets us have one."""
    add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
    libc = ctypes.CDLL(None)
    key = libc.syscall(add_key, b"user", name.encode(), b"secret", 6, -3)
    yield
    if key != -1:
        libc.syscall(keyctl, 9, key, -3)  # takes it out of the keyring


async def test_no_way_out_works(walled: Bench) -> None:
    name = f"hearth-test-{os.getpid()}"
    victim = subprocess.Popen(["sleep", "600"])
    with socket.socket(socket.AF_UNIX) as listener, key_of_the_session(name):
        listener.bind("\0" + name)
        listener.listen()
        found = await told(await walled.start("break-out", VICTIM=str(victim.pid), SOCKET=name))
    assert victim.poll() is None
    victim.kill()
    victim.wait()
    assert found == {}


@pytest.mark.parametrize("bomb", ["fork-bomb", "descriptor-bomb", "allocate"])
async def test_a_bomb_does_not_hurt_a_neighbour(walled: Bench, bomb: str) -> None:
    if not walled.driver.capabilities.limits_memory:
        pytest.skip("no control groups here")
    neighbour, thrown = await walled.start("echo"), await walled.start(bomb)
    if bomb == "allocate":
        assert (await thrown.wait()).code != 0
    else:
        assert int(await thrown.channel.stdout.read()) < 1024
    await neighbour.channel.stdin.write(b"alive")
    async with asyncio.timeout(60):
        assert await neighbour.channel.stdout.read() == b"alive"


async def test_functions_that_loop_do_not_hurt_a_neighbour(walled: Bench) -> None:
    """More of them than the machine has processors, and none with a limit."""
    neighbour = await walled.start("echo")
    for _ in range(2 * (os.cpu_count() or 1)):
        await walled.start("burn")
    for word in (b"alive", b"still"):
        await neighbour.channel.stdin.write(word)
        async with asyncio.timeout(60):
            assert await neighbour.channel.stdout.read() == word


async def test_an_image_can_be_denied_root_and_its_own_files(docker: None, tmp_path: Path) -> None:
    bench = make_bench("docker", tmp_path)
    bench.driver = DockerDriver(DOCKER, node=NODE, instance="now", walls=Walls(read_only=True, unprivileged=True))
    async with opened(bench):
        paths = json.dumps(["/", "/tmp", "/etc", "/dev/shm"])
        assert (await told(await bench.start("look", PATHS=paths)))["written"] == ["/tmp", "/dev/shm"]
        victim: dict[str, Any] = {"VICTIM": "1000000", "SOCKET": "none"}
        assert await told(await bench.start("break-out", **victim)) == {}
