"""Many clients at once, whose functions and connections misbehave in every known way, while containers are killed."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import io
import json
import os
import random
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp

from tests.support.hostile import CROWDED, FORMATS, HOSTILE, LATER, Hostile
from tests.support.node import RunningNode

_CLIENT_LIMIT_S: Final = 90.0
_MIB: Final = 1 << 20
_STREAM: Final = "http-stream"
#: Seconds that a call of each kind of function may take.
_TIMEOUTS: Final = {"good": 60, "bad": 3, "later": 3}
#: A second answer while the next call runs on the same connection cannot be told from that call's answer.
_FAULTS: Final = tuple(orders for orders in CROWDED if "late_ms" not in orders)
#: The share of calls over sockets that go to containers which run several at once.
_CROWDED: Final = 0.2
_NO_TEXT: Final = b"\xff" * 60_000_000
_RUDE: Final = (
    "an upload that is given up",
    "a slow body",
    "a slow head",
    "nobody reads the answer",
    "no text for a json function",
)


Card = TypeVar("Card")


@dataclasses.dataclass(slots=True)
class Outcome:
    """What a storm's clients saw: how often what, and every answer that was not the call's own."""

    seen: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)


class _Deck(Generic[Card]):
    """Cards in a random order; each comes up once before any comes up again."""

    def __init__(self, cards: Sequence[Card], dice: random.Random) -> None:
        self._cards, self._dice = cards, dice
        self._left: list[Card] = []

    def draw(self) -> Card:
        """Return the next card."""
        self._left = self._left or self._dice.sample(self._cards, len(self._cards))
        return self._left.pop()


class Storm:
    """A storm over one node.

    Args:
        calls: How many in all.
        at_once: How many at a time.
        formats: Of the functions that are called. Those of ``http-stream`` are called as routes, as fns by their id,
            and as fns through triggers.
        crowd: The image of ``crowd.py``, to call containers that run several calls at once too.
        bad: Share of the calls that misbehave, or whose clients hang up.
        seed: Of every random choice.
    """

    def __init__(
        self,
        node: RunningNode,
        *,
        calls: int,
        at_once: int,
        formats: Sequence[str] = FORMATS,
        crowd: str = "",
        bad: float = 0.4,
        seed: int = 1,
    ) -> None:
        self._node = node
        self._left = calls
        self._at_once = at_once
        self._formats = formats
        self._bad = bad
        self._dice = random.Random(seed)
        # Where the driver does not see what is read, a second answer may come when the next call's answer is due.
        sees_input = node.driver != "docker"
        possible = [one for one in HOSTILE if set(one.formats) & set(formats)]
        self._hostile = _Deck([one for one in possible if sees_input or "again" not in one.orders], self._dice)
        self._rude = _Deck([way for way in _RUDE if "json" in formats or "json" not in way], self._dice)
        self.outcome = Outcome()
        self._paths = {
            (kind, name): node.route(f"storm-{kind}-{name}", name, timeout=timeout, memory=64, idle_timeout=2)
            for kind, timeout in _TIMEOUTS.items()
            for name in formats
        }
        self._fns = {kind: _fn(node, kind, timeout) for kind, timeout in _TIMEOUTS.items() if _STREAM in formats}
        limits = {"timeout": 10, "memory": 64, "idle_timeout": 2, "concurrency": 4}
        self._crowd = node.route("storm-crowd", _STREAM, image=crowd, **limits) if crowd else ""

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
            name = self._dice.choice(self._formats)
            if name == _STREAM and self._crowd and self._dice.random() < _CROWDED:
                await self._in_a_crowd(client, text)
            elif self._dice.random() < self._bad:
                await self._misbehave(client, name, text)
            else:  # some of the well-behaved are among those who are not
                kind = "bad" if self._dice.random() < self._bad else "good"
                await self._call(client, self._path(kind, name), {"echo": text})

    async def _misbehave(self, client: aiohttp.ClientSession, name: str, text: str) -> None:
        match self._dice.randrange(10):
            case 0:
                await self._call(client, self._path("later", name), self._dice.choice(LATER[name]))
            case 1:
                await self._hang_up(client, self._path("good", name), {"echo": text, "sleep_ms": 30})
            case 2:
                await self._rudely(client, self._rude.draw(), name, text)
            case _:
                await self._harm(client, self._hostile.draw(), name, text)

    async def _harm(self, client: aiohttp.ClientSession, hostile: Hostile, name: str, text: str) -> None:
        possible = [each for each in self._formats if each in hostile.formats]
        sees = not (hostile.body or "status" in hostile.orders)  # the URL, and the status of the function
        path = self._path("bad", name if name in possible else possible[0], by_id=sees)
        orders = {**hostile.orders, "echo": text}
        body = json.dumps(orders).encode()
        if hostile.body:
            path, body = f"{path}?do={quote(body)}", bytes(hostile.body)
        try:
            async with client.post(path, data=io.BytesIO(body)) as response:
                answer = (await response.read()).decode("latin-1")
        except aiohttp.ClientError:  # cut off, and the client can tell
            self.outcome.seen["truncated"] += 1
            return
        self.outcome.seen[str(response.status)] += 1
        if response.status >= 500:
            _ = _message(answer)
        elif response.status != 200 or not hostile.echo or answer != text:
            self.outcome.wrong.append(f"{hostile.name}, {name}, {text}: {response.status} {answer[:100]}")

    def _path(self, kind: str, name: str, *, by_id: bool = True) -> str:
        """Return a path of such a function.

        Args:
            by_id: It may be that of a fn itself, which does not see the URL and sets no status.
        """
        if name != _STREAM:
            return self._paths[kind, name]
        return self._dice.choice([self._paths[kind, name], *self._fns[kind][not by_id :]])

    async def _in_a_crowd(self, client: aiohttp.ClientSession, text: str) -> None:
        """Call a function of which one container runs several calls, each on a connection of its own."""
        fault = self._dice.choice(_FAULTS) if self._dice.random() < self._bad / 3 else {}
        orders = fault or {"sleep_ms": self._dice.randrange(30)}
        try:
            async with client.post(self._crowd, json={**orders, "echo": text}) as response:
                answer = await response.read()
        except aiohttp.ClientError:  # cut off, and the client can tell
            self.outcome.seen["truncated"] += 1
            return
        self.outcome.seen[str(response.status)] += 1
        if response.status >= 500:
            _ = _message(answer)
        elif response.status != 200 or json.loads(answer)["echo"] != text:
            self.outcome.wrong.append(f"crowd, {orders}, {text}: {response.status} {answer[:100]!r}")

    async def _rudely(self, client: aiohttp.ClientSession, way: str, name: str, text: str) -> None:
        """A client that misbehaves: its connection, and what it sends."""
        self.outcome.seen["rude"] += 1
        bad = self._paths["bad", name]
        match way:
            case "an upload that is given up":
                await self._send(bad, self._dice.randrange(20, 50) * _MIB, self._dice.randrange(40) * _MIB)
            case "a slow body":
                await self._send(bad, 1000, 100, step=5)
            case "a slow head":
                await self._send(bad, None, 100, step=5)
            case "nobody reads the answer":
                orders = {"size": 30_000_000} if name == "http" else {"run": "orders['size'] = 5_000_000"}
                await self._send(f"{bad}?do={quote(json.dumps(orders))}", 0, 0, stay_s=0.5)
            case "no text for a json function":
                with contextlib.suppress(aiohttp.ClientError):  # closed before it has sent all
                    path = self._paths["good", "json"]
                    async with client.post(path, data=io.BytesIO(_NO_TEXT)) as response:
                        if response.status != 413:
                            self.outcome.wrong.append(f"{way}: {response.status}")

    async def _send(self, path: str, length: int | None, sent: int, step: int = _MIB, stay_s: float = 0.0) -> None:
        """Send a part of a request, piece by piece, and leave.

        Args:
            path: What is called.
            length: Said of the body. ``None``: the head never ends.
            sent: Bytes that are sent after the head.
            step: Bytes that are sent at once; fewer than a MiB slowly.
            stay_s: How long the client then stays, without reading.
        """
        address = urlsplit(self._node.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port, limit=1)
        try:
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\n"
            writer.write((head if length is None else f"{head}Content-Length: {length}\r\n\r\n").encode())
            for _ in range(0, sent, step):
                writer.write(b"a" * step)
                await writer.drain()
                if step < _MIB:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(stay_s)
        except ConnectionError:  # refused
            return
        finally:
            writer.transport.abort()

    async def _call(self, client: aiohttp.ClientSession, path: str, orders: dict[str, Any]) -> None:
        try:
            async with client.post(path, json=orders) as response:
                self._judge(orders, response.status, (await response.read()).decode())
        except aiohttp.ClientError:  # cut off, and the client can tell
            self.outcome.seen["truncated"] += 1

    def _judge(self, orders: dict[str, Any], status: int, body: str) -> None:
        self.outcome.seen[str(status)] += 1
        if status >= 500:
            _ = _message(body)
        elif status != 200 or body != orders["echo"]:
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


def _fn(node: RunningNode, kind: str, timeout: int) -> tuple[str, str]:
    """Make a fn, or find it; its paths: by its id, and through a trigger."""

    def made(resource: str, **fields: Any) -> str:
        query: dict[str, str] = {name: fields[name] for name in fields if name in ("name", "app_id")}
        if found := node.http.get(f"/v2/{resource}", params=query).json()["items"]:
            return str(found[0]["id"])
        answer = node.http.post(f"/v2/{resource}", json=fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    app = made("apps", name="storm")
    limits = {"timeout": timeout, "memory": 64, "idle_timeout": 2}
    fn = made("fns", app_id=app, name=kind, image=node.image, **limits)
    made("triggers", app_id=app, fn_id=fn, name=kind, type="http", source=f"/{kind}")
    return f"/invoke/{fn}", f"/t/storm/{kind}"


def _message(body: str | bytes) -> str:
    """The text of an error of either API."""
    told = json.loads(body)
    return str(told.get("error", told)["message"])


def containers(node: RunningNode) -> list[str]:
    """What runs for a node now: ids of the Engine, or of processes."""
    if node.driver == "docker":
        label = f"label=hearth.node={(node.data / 'node-id').read_text().strip()}"
        listed = subprocess.run(["docker", "ps", "-q", "--filter", label], capture_output=True)
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
