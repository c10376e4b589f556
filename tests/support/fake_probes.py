"""What the probe (tests/functions/probe.py) does, as scripts of the fake driver."""

from __future__ import annotations

import asyncio
import json

from hearth.drivers.base import ContainerSpec, StartFailed
from hearth.testing.scripted_driver import Pipe, Program, Script, Step, echo


async def sleep(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    await asyncio.get_running_loop().create_future()
    return 0


async def flood(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    async def pour(pipe: Pipe) -> None:
        for _ in range(160):
            await pipe.write(b"x" * 65536)

    await asyncio.gather(pour(stdout), pour(stderr))
    return 0


async def early(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    await stdout.write(b"early\n")
    return 0


async def mute(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    stdout.close()
    await stderr.write(b"closed")
    while await stdin.read():
        pass
    return 0


async def mute_exit(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    stdout.close()
    return 3


async def deaf(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    stdin.abandon()
    await stdout.write(b"closed")
    return await sleep(stdin, stdout, stderr)


async def twice(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    await stdin.read()
    await stdout.write(b"answer")
    await stdin.read()
    stdout.post(b"late")
    return await sleep(stdin, stdout, stderr)


def exits(code: int) -> Program:
    async def program(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        return code

    return program


PROGRAMS: dict[str, Program] = {
    "echo": echo,
    "sleep": sleep,
    "flood": flood,
    "early": early,
    "mute": mute,
    "mute-exit-3": mute_exit,
    "deaf": deaf,
    "twice": twice,
    "exit-0": exits(0),
    "exit-3": exits(3),
    "segfault": exits(139),
    "suicide": exits(137),
    "burn": sleep,
}


def script_of(spec: ContainerSpec) -> Script:
    """The script of one container of the probe's image, or of the broken one."""
    if spec.image == "broken":
        return Script(start=Step(error=StartFailed("no such file or directory", image_fault=True)))
    probe = spec.env["PROBE"]
    if probe == "env":
        return Script(main=_telling(json.dumps(dict(spec.env))))
    return Script(main=PROGRAMS[probe], metrics={"mem_usage": 1 << 20, "cpu_total": 100})


def _telling(text: str) -> Program:
    async def program(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await stdout.write(text.encode())
        return 0

    return program
