"""Containers have an init process: what a function leaves behind does not pile up."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.docker_images import python_image
from tests.support.engine import private_engine

from hearth.drivers.base import ContainerSpec
from hearth.drivers.docker import init
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver
from hearth.models.ids import encode

HOST = "unix:///var/run/docker.sock"
REACH = Path(__file__).parent.parent / "functions" / "reach.py"
MAX_PIDS = 10
_numbers = itertools.count(os.getpid() << 32)


@contextlib.asynccontextmanager
async def opened(host: str) -> AsyncIterator[DockerDriver]:
    driver = DockerDriver(host, node=f"init-{os.getpid()}", instance="now", walls=Walls(max_pids=MAX_PIDS))
    try:
        await driver.open()
        yield driver
    finally:
        await driver.close()


async def told(driver: DockerDriver, **act: Any) -> dict[str, Any]:
    env = {"REACH": json.dumps(act)}
    spec = ContainerSpec(id=encode(next(_numbers)), image=python_image(REACH), env=env, memory_mib=64)
    container = await driver.prepare(spec)
    try:
        await container.start()
        output = b""
        while data := await container.channel.stdout.read():
            output += data
        found: dict[str, Any] = json.loads(output)
        return found
    finally:
        await container.remove()


async def test_orphans_do_not_fill_the_limit_of_processes(docker: None) -> None:
    async with opened(HOST) as driver:
        assert (await told(driver, orphans=5 * MAX_PIDS))["orphans"] == 5 * MAX_PIDS
        assert (await told(driver, children=5 * MAX_PIDS))["children"] == MAX_PIDS - 1  # beside the function itself


async def test_an_engine_without_init_runs_functions_and_says_what_is_missing(docker: None) -> None:
    with private_engine("--init-path=/nosuch/init") as engine:
        engine.copy_image(python_image(REACH))
        async with opened(engine.host) as driver:
            assert init.MISSING in driver.warnings
            assert (await told(driver, children=1))["children"] == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"[FATAL tini (7)] exec /a failed: No such file or directory\n", "no such file or directory"),
        (b"[FATAL tini (7)] exec /a failed: Permission denied\nmore", "permission denied"),
        (b"ERROR (catatonit:2): failed to exec pid1: Exec format error\n", "exec format error"),
        (b"my own [FATAL tini (7)] exec /a failed: x\n", ""),
        (b"", ""),
    ],
)
def test_why_a_program_cannot_be_executed_is_read_from_the_init_process(said: bytes, reason: str) -> None:
    assert init.start_fault(said) == reason
