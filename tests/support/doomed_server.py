"""A server that starts containers, names them on stderr, and waits for its end.

``doomed_server.py DRIVER FOLDER NODE IMAGE``
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from hearth.drivers.base import Driver
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.local.driver import LocalDriver
from hearth.drivers.local.surroundings import Walls
from tests.support.driver_bench import DOCKER, spec


async def main(name: str, folder: Path, node: str, image: str) -> None:
    driver: Driver
    if name == "docker":
        driver = DockerDriver(DOCKER, node=node, instance="doomed")
    else:
        driver = LocalDriver(
            folder / "bundles", node, walls=Walls(sandbox="off" if name == "process without sandbox" else "required")
        )
    await driver.open()
    containers = [await driver.prepare(spec(image, "echo")) for _ in range(3)]
    for container in containers:
        await container.start()
        await container.channel.stdin.write(b"x")
        await container.channel.stdout.read()
    print(*[container.id for container in containers], file=sys.stderr, flush=True)
    await asyncio.Event().wait()


uvloop.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
