"""Functions in Docker that try to get out of their container, with each network that they may be given.

Root in an image is the worst case; an ordinary user is tried with the usual network.

What Docker's own profile leaves open is listed where it shows: docs/security.md has it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.docker_images import python_image

from hearth.drivers.base import Container, ContainerSpec
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver
from hearth.models.function_network import FunctionNetwork
from hearth.models.ids import encode

HOST = "unix:///var/run/docker.sock"
NODE = f"escapes-{os.getpid()}"
ESCAPE = Path(__file__).parents[2] / "functions" / "escape.py"
REACH = ESCAPE.with_name("reach.py")
KINDS = ["root, network none", "root, network internet", "root, network host", "ordinary user, network internet"]
#: Where a cloud tells a machine its credentials.
METADATA = "169.254.169.254:80"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: System calls that the profile of some Engines allows.
LEFT_OPEN = {"io_uring_setup", "vsock", "i386"}
_numbers = itertools.count(os.getpid() << 32)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, FunctionNetwork]:
    user, network = request.param.split(", network ")
    return user, FunctionNetwork(network)


@pytest.fixture
async def driver(docker: None, kind: tuple[str, FunctionNetwork]) -> AsyncIterator[DockerDriver]:
    user, network = kind
    walls = Walls(unprivileged=user == "ordinary user", network=network)
    opened = DockerDriver(HOST, node=NODE, instance="now", walls=walls)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()


@contextlib.asynccontextmanager
async def started(
    driver: DockerDriver, escape: str, memory_mib: int = 64, *, program: Path = ESCAPE, app: str = "a", **env: str
) -> AsyncIterator[Container]:
    container_id = encode(next(_numbers))
    env = {"ESCAPE": escape, "MARK": container_id, **env}
    container = await driver.prepare(
        ContainerSpec(id=container_id, image=python_image(program), env=env, memory_mib=memory_mib, app=app)
    )
    try:
        await container.start()
        yield container
    finally:
        await container.remove()


async def told(driver: DockerDriver, escape: str, **env: Any) -> dict[str, Any]:
    async with started(driver, escape, **env) as container:
        stdout, stderr = await asyncio.gather(
            *[whole(stream) for stream in (container.channel.stdout, container.stderr)]
        )
        assert (await container.wait()).code == 0, stderr
    found: dict[str, Any] = json.loads(stdout)
    return found


async def line(stream: Any) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        part = await stream.read()
        assert part, "it has ended"
        data += part
    found: dict[str, Any] = json.loads(data)
    return found


async def whole(stream: Any) -> bytes:
    chunks = []
    while chunk := await stream.read():
        chunks.append(chunk)
    return b"".join(chunks)


def done(found: dict[str, Any]) -> set[str]:
    return {name for name, result in found.items() if result == "done"}


def devices() -> dict[str, tuple[int, int, int]]:
    found = {name: os.stat(f"/dev/{name}") for name in DEVICES}
    return {name: (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) for name, info in found.items()}


async def test_no_namespace_is_made_or_joined(driver: DockerDriver) -> None:
    assert done(await told(driver, "namespaces")) == set()


async def test_no_control_group_is_mounted_or_written(driver: DockerDriver) -> None:
    found = await told(driver, "groups")
    mounted_by_docker = {name for name in found if name.startswith("mount /sys/fs/cgroup")}
    assert done(found) <= mounted_by_docker
    assert [name for name in found if name.startswith("write /sys/fs/cgroup")], "they are in view, read-only"


async def test_system_calls_that_change_the_machine_are_refused(driver: DockerDriver) -> None:
    assert done(await told(driver, "calls")) <= LEFT_OPEN
    assert socket.gethostname() != "taken"


async def test_devices_of_the_machine_are_neither_made_nor_changed(driver: DockerDriver) -> None:
    before = devices()
    found = await told(driver, "devices")
    assert {name for name in done(found) if name.startswith(("make", "open"))} == set()
    assert devices() == before


async def test_other_processes_and_the_kernel_are_out_of_reach(driver: DockerDriver) -> None:
    with subprocess.Popen(["sleep", "600"], env={"MARK": "victim"}) as victim:
        found = await told(driver, "processes", VICTIM=str(victim.pid), ADDRESS="4096")
        assert victim.poll() is None
        victim.kill()
    assert found.pop("visible") == []
    # Its own user map is the machine's, which nobody can write twice; it may make itself likelier to be ended.
    assert done(found) <= {"identities", "less likely to be ended"}


async def test_it_has_no_right_and_gains_none(driver: DockerDriver) -> None:
    found = await told(driver, "state")
    assert {found[name] for name in found if name.startswith("Cap")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"], found["core"][0]) == ("1", "2", 0)
    assert len(found["descriptors"]) <= 7, "three pipes for init and function, its copy of one"
    assert done(await told(driver, "set_uid")) <= {"own", "become root"}, "it is root already, without any right"


async def test_sockets_and_files_of_the_machine_are_not_there(driver: DockerDriver) -> None:
    paths = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/systemd/private"]
    assert set((await told(driver, "sockets", PATHS=json.dumps(paths))).values()) == {"ENOENT"}
    found = await told(driver, "files", PATHS=json.dumps([*paths, "/etc/shadow", "/var/lib/docker"]))
    assert {name for name in done(found) if name.startswith("read") or "/proc" in name} == set()


async def test_its_network_leads_no_further_than_its_mode(
    driver: DockerDriver, kind: tuple[str, FunctionNetwork]
) -> None:
    """To functions of its app and of another, to this machine by loopback, and to the metadata service of a cloud."""
    network = kind[1]
    async with contextlib.AsyncExitStack() as stack:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1")
        await stack.enter_async_context(server)
        loopback = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        neighbours = []
        for app in ("a", "b") if network is FunctionNetwork.INTERNET else ():
            listen = json.dumps({"listen": 7070})
            container = await stack.enter_async_context(started(driver, "", program=REACH, app=app, REACH=listen))
            neighbours.append(f"{(await line(container.channel.stdout))['addresses'][0]}:7070")
        places = json.dumps({"connect": [loopback, *neighbours, *([METADATA] * (network is FunctionNetwork.NONE))]})
        container = await stack.enter_async_context(started(driver, "", program=REACH, app="a", REACH=places))
        found = await line(container.channel.stdout)
    closed_by_peer = ("connected", "ConnectionResetError")
    reached = {place for place, result in found["connect"].items() if result in closed_by_peer}
    if network is FunctionNetwork.HOST:
        assert reached == {loopback}, "nothing of the network is isolated"
    else:
        assert reached == set()
        assert len(found["addresses"]) == (network is FunctionNetwork.INTERNET)


async def test_bombs_end_in_their_container(driver: DockerDriver) -> None:
    assert (await told(driver, "fork_bomb"))["made"] < 50
    assert (await told(driver, "descriptor_bomb"))["made"] < 1024
    ends = []
    for _ in range(3):  # on a busy machine the Engine may tell why a container was killed too late
        async with started(driver, "hog") as container:
            ends.append(await container.wait())
    assert {end.code for end in ends} == {137}
    assert any(end.oom for end in ends)


async def test_a_daemon_ends_with_its_container(driver: DockerDriver) -> None:
    async with started(driver, "daemon") as container:
        assert json.loads(await whole(container.channel.stdout)) == {"left": True}
        await container.wait()
        mark = f"MARK={container.id}".encode()
    left = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                left.append(path)
    assert left == []
