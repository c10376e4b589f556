"""Many clients at once, a third of whose calls misbehave in every known way, while containers are killed."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.node import RunningNode

#: How a function can misbehave, by its orders.
MISBEHAVIOUR: Final[tuple[dict[str, Any], ...]] = (
    {"exit": 0},
    {"exit": 3},
    {"kill": True},
    {"raw": "garbage\n\n\n\n"},
    {"surplus": '{"body":"stolen"}\n', "echo": "s"},
    {"surplus": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", "echo": "s"},
    {"die": True, "echo": "half of an answer"},
    {"partial": True, "echo": "half of an answer"},
    {"after": 1, "echo": "last words"},
    {"stderr": 100_000, "echo": "noise"},
    {"sleep_ms": 60_000},
)
#: A second answer, written while another call of the same function may be running: the format cannot tell it from that
#: call's answer. It may reach that function's own callers, and nobody else.
LATER: Final[dict[str, dict[str, Any]]] = {
    "json": {"later": '{"body":"stolen"}\n', "later_ms": 30, "echo": "stolen"},
    "http": {"later": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", "later_ms": 30, "echo": "stolen"},
}
_CLIENT_LIMIT_S: Final = 90.0


@dataclasses.dataclass(slots=True)
class Outcome:
    """What a storm's clients saw: how often what, and every answer that was not the call's own."""

    seen: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)


class Storm:
    """A storm over one node.

    Args:
        calls: How many in all.
        at_once: How many at a time.
        bad: Share of the calls that misbehave, or whose clients hang up.
        seed: Of every random choice.
    """

    def __init__(self, node: RunningNode, *, calls: int, at_once: int, bad: float = 0.4, seed: int = 1) -> None:
        self._node = node
        self._left = calls
        self._at_once = at_once
        self._bad = bad
        self._dice = random.Random(seed)
        self.outcome = Outcome()
        self._paths = {
            (kind, name): node.route(f"storm-{kind}-{name}", name, timeout=timeout, memory=64, idle_timeout=2)
            for kind, timeout in (("good", 60), ("bad", 3), ("later", 3))
            for name in ("http", "json")
        }

    def run(self) -> Outcome:
        """Let it rage."""
        asyncio.run(self._run())
        return self.outcome

    async def _run(self) -> None:
        limit = aiohttp.ClientTimeout(total=_CLIENT_LIMIT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._node.url, connector=connector, timeout=limit) as client:
            killer = asyncio.ensure_future(self._kill())
            await asyncio.gather(*[self._client(client, number) for number in range(self._at_once)])
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)

    async def _client(self, client: aiohttp.ClientSession, number: int) -> None:
        while self._left > 0:
            self._left -= 1
            text = f"answer {self._left} of {number}"
            name = self._dice.choice(("http", "json"))
            if self._dice.random() < self._bad:
                await self._misbehave(client, name, text)
            else:  # some of the well-behaved are among those who are not
                kind = "bad" if self._dice.random() < self._bad else "good"
                await self._call(client, self._paths[kind, name], {"echo": text})

    async def _misbehave(self, client: aiohttp.ClientSession, name: str, text: str) -> None:
        match self._dice.randrange(10):
            case 0:
                await self._call(client, self._paths["later", name], LATER[name])
            case 1 | 2:
                await self._hang_up(client, self._paths["good", name], {"echo": text, "sleep_ms": 30})
            case _:
                await self._call(client, self._paths["bad", name], dict(self._dice.choice(MISBEHAVIOUR)))

    async def _call(self, client: aiohttp.ClientSession, path: str, orders: dict[str, Any]) -> None:
        try:
            async with client.post(path, json=orders) as response:
                body = (await response.read()).decode()
                self._judge(orders, response.status, body)
        except aiohttp.ClientError:  # cut off, and the client can tell
            self.outcome.seen["truncated"] += 1

    def _judge(self, orders: dict[str, Any], status: int, body: str) -> None:
        self.outcome.seen[str(status)] += 1
        if status >= 500:
            json.loads(body)["error"]["message"]
        elif status != 200 or body != orders.get("echo", json.dumps(orders)):
            self.outcome.wrong.append(f"{orders}: {status} {body[:100]}")

    async def _hang_up(self, client: aiohttp.ClientSession, path: str, orders: dict[str, Any]) -> None:
        self.outcome.seen["hung up"] += 1
        limit = aiohttp.ClientTimeout(total=self._dice.choice((0.001, 0.01, 0.05)))
        try:
            async with client.post(path, json=orders, timeout=limit) as response:
                self._judge(orders, response.status, (await response.read()).decode())
        except (aiohttp.ClientError, TimeoutError):
            pass

    async def _kill(self) -> None:
        """Kill a container from outside, a few times a second."""
        while True:
            await asyncio.sleep(0.4)
            victims = await asyncio.to_thread(containers, self._node)
            if victims:
                await asyncio.to_thread(_kill_container, self._node, self._dice.choice(victims))
                self.outcome.seen["killed from outside"] += 1


def containers(node: RunningNode) -> list[str]:
    """What runs for a node now: ids of the Engine, or of processes."""
    if node.driver == "docker":
        listed = subprocess.run(["docker", "ps", "-q", "--filter", f"ancestor={node.image}"], capture_output=True)
        return listed.stdout.decode().split()
    listed = subprocess.run(["pgrep", "-f", f"{node.data}/bundles"], capture_output=True)
    return [pid for pid in listed.stdout.decode().split() if int(pid) != node.process.pid]


def _kill_container(node: RunningNode, name: str) -> None:
    if node.driver == "docker":
        subprocess.run(["docker", "kill", name], capture_output=True)
    else:
        try:
            os.kill(int(name), signal.SIGKILL)
        except ProcessLookupError:
            return


def descriptors(node: RunningNode) -> collections.Counter[str]:
    """What the node has open, other than its database: that pools connections, as many as it was ever asked for."""
    names: list[str] = []
    folder = Path(f"/proc/{node.process.pid}/fd")
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(entry).partition(":")[0])
    return collections.Counter([name for name in names if ".db" not in name])


def resident_mib(node: RunningNode) -> int:
    """Memory of the node's process."""
    with open(f"/proc/{node.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
