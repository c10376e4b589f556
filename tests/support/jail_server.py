"""A driver of its own process, which runs functions as it is told to, one JSON object a line.

``jail_server.py BUNDLES NODE WALLS``, the walls as JSON.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from hearth.drivers.base import Container, ContainerSpec, DriverUnavailable, StartFailed
from hearth.drivers.local.driver import LocalDriver
from hearth.drivers.local.surroundings import Walls
from hearth.models.function_network import FunctionNetwork

HELD: dict[str, Container] = {}


async def run(driver: LocalDriver, order: dict[str, Any]) -> dict[str, Any]:
    """Run one function to its end; what it wrote, and how it ended. Or hold it once it has written something."""
    if "release" in order:
        await HELD.pop(order["release"]).remove()
        return {}
    spec = ContainerSpec(
        id=order["id"],
        image=order["image"],
        env=order["env"],
        memory_mib=order["memory_mib"],
        cpu_milli=order.get("cpu_milli", 0),
        app=order["app"],
    )
    container = await driver.prepare(spec)
    try:
        await container.start()
        if order.get("hold"):
            HELD[container.id] = container
            return {"stdout": (await container.channel.stdout.read()).decode()}
        read = asyncio.gather(*[read_all(stream) for stream in (container.channel.stdout, container.stderr)])
        ended = await container.wait()
        stdout, stderr = await read
    except StartFailed as exc:
        return {"error": str(exc)}
    finally:
        if container.id not in HELD:
            await container.remove()
    return {"stdout": stdout, "stderr": stderr, "code": ended.code, "oom": ended.oom, "error": ended.error}


async def read_all(stream: Any) -> str:
    chunks = []
    while chunk := await stream.read():
        chunks.append(chunk)
    return b"".join(chunks).decode(errors="replace")


async def main(bundles: Path, node: str, walls: dict[str, Any]) -> None:
    for name in ("network", "network_without_tools"):
        if walls.get(name):
            walls[name] = FunctionNetwork(walls[name])
    walls["allowed_networks"] = tuple(map(ipaddress.IPv4Network, walls.get("allowed_networks", ())))
    driver = LocalDriver(bundles, node, walls=Walls(**walls))
    try:
        await driver.open()
    except DriverUnavailable as exc:
        tell({"unavailable": str(exc)})
        await driver.close()
        return
    capabilities = driver.capabilities
    told = {"limits_memory": capabilities.limits_memory, "limits_cpu": capabilities.limits_cpu}
    tell({**told, "isolates_network": capabilities.isolates_network, "warnings": driver.warnings})
    while line := await asyncio.to_thread(sys.stdin.readline):
        tell(await run(driver, json.loads(line)))
    await driver.close()


def tell(value: Any) -> None:
    print(json.dumps(value), file=ANSWERS, flush=True)


ANSWERS, sys.stdout = sys.stdout, sys.stderr  # what is logged goes elsewhere
uvloop.run(main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
