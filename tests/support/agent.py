"""An agent over scripted containers, in virtual time: whole lives of calls within milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

from hearth.access.base import AcceptedCalls, CallRecords, EndedCall, StoredWorld
from hearth.agent.agent import Agent
from hearth.agent.call import ActiveCall
from hearth.contracts.base import Head
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import AppsNotFound, InternalError, RoutesNotFound
from hearth.models.function import Amount, FunctionSpec
from hearth.models.ids import encode
from hearth.models.route import LIMITS, Route, RouteLimits
from hearth.queues.base import Reserved
from hearth.server.api_v1.functions import Functions
from hearth.testing.script import Pipe, Script
from hearth.testing.scripted_driver import FakeDriver, Plan
from tests.support.virtual_time import VirtualClock

APP = App(name="a")
TOTAL = Amount(1000, 8000)
#: More than the time for which a new container is watched after an answer.
WATCH_S = 0.01


class Records(CallRecords, AcceptedCalls):
    """Definitions and records in memory; there is no queue behind it."""

    visibility_s = 60.0

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.app: App | None = APP
        self.ended: list[EndedCall] = []

    @property
    def world(self) -> StoredWorld:
        """All three interfaces of it."""
        return StoredWorld(self, self, self)

    async def get_app(self, name: str) -> App:
        if self.app is None:
            raise AppsNotFound
        return self.app

    async def get_route(self, app_name: str, path: str) -> Route:
        if path not in self.routes:
            raise RoutesNotFound
        return self.routes[path]

    async def finish_many(self, ended: list[EndedCall]) -> None:
        self.ended += ended

    async def enqueue(self, call: Call) -> None:
        raise InternalError("no queue")

    async def dequeue(self, limit: int, without: frozenset[str] = frozenset()) -> list[Reserved]:
        return await asyncio.get_running_loop().create_future()

    async def start(self, call: Call) -> None: ...

    async def acknowledge(self, leases: list[str]) -> list[bool]:
        return [True] * len(leases)

    async def renew(self, leases: list[str]) -> list[bool]:
        return [True] * len(leases)

    async def release(self, lease: str, delay_s: float = 0.0) -> None: ...

    async def interrupted(self, call: Call) -> None: ...


class Sink:
    """A client: keeps what reaches it."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.body = b""
        self.completed = 0
        self.started = False

    def head(self, head: Head) -> None:
        self.heads.append(head)

    def answer(self, head: Head, body: bytes) -> None:
        self.heads.append(head)
        if body:
            self.started = True
            self.body += body
        self.completed += 1

    async def write(self, data: bytes, *, last: bool) -> None:
        self.started = True
        self.body += data

    def complete(self) -> None:
        self.completed += 1


class Body:
    """The client's body, in the pieces that are put into it."""

    def __init__(self, *pieces: bytes, length: int | None = None, open_end: bool = False) -> None:
        self._pieces = deque(pieces)
        self._more = asyncio.Event()
        self.length: int | None = sum(map(len, pieces)) if length is None else length
        self.ended = False
        if not open_end:
            self.put(b"")

    def put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._more.set()
        self.ended = self.ended or list(self._pieces) == [b""]  # its end arrived when all else was read

    async def read(self) -> bytes:
        if self.ended:
            return b""
        while not self._pieces:
            self._more.clear()
            await self._more.wait()
        piece = self._pieces.popleft()
        self.ended = not piece or list(self._pieces) == [b""]
        return piece


Behaviour = Callable[[dict[str, Any], Pipe, Pipe], Awaitable[int | None]]


def function_program(behave: Behaviour) -> Callable[[Pipe, Pipe, Pipe], Awaitable[int]]:
    """A ``json`` function: ``behave`` answers each call; it ends when that returns an exit code."""

    async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        received = b""
        while data := await stdin.read():
            received += data
            while b"\n\n" in received:
                text, _, received = received.partition(b"\n\n")
                code = await behave(json.loads(text), stdout, stderr)
                if code is not None:
                    return code
        return 0

    return main


def answer(text: str) -> bytes:
    """A ``json`` function's answer."""
    return json.dumps({"body": text}).encode() + b"\n"


async def obey(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> int | None:
    """Do what the body says: sleep, exit, say, echo, write garbage or a second answer."""
    orders = json.loads(call["body"] or "{}")
    await asyncio.sleep(orders.get("sleep", 0))
    if "say" in orders:
        await stderr.write(orders["say"].encode())
    if "exit" in orders:
        return int(orders["exit"])
    if "raw" in orders:
        await stdout.write(orders["raw"].encode())
    else:
        await stdout.write(answer(orders.get("echo", "")))
    if "later" in orders:
        await asyncio.sleep(orders["later"])
        await stdout.write(answer("late"))
    return None


OBEDIENT = function_program(obey)


class Bench:
    """An agent, its scripted driver, its records, and functions to call."""

    def __init__(
        self, agent: Agent, driver: FakeDriver, records: Records, clock: VirtualClock, limits: RouteLimits
    ) -> None:
        self.agent = agent
        self.functions = Functions(agent.pool, records, limits)
        self.driver = driver
        self.records = records
        self.clock = clock
        self.submitted = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count(1)

    def function(self, path: str = "/f", image: str = "obey", **fields: Any) -> FunctionSpec:
        """A function; a path's next definition replaces the one before."""
        route = Route(app_name="a", path=path, image=image, **{"format": "json", **fields})
        self.records.routes[path] = route
        return self.functions.of_route(APP, route)

    def call(
        self, function: FunctionSpec, sink: Sink | None = None, body: Body | None = None, **orders: Any
    ) -> ActiveCall:
        """A call with orders in its body."""
        return self.agent.new_call(
            function,
            encode(next(self._ids)),
            method="POST",
            url="http://h/r/a/f",
            headers={},
            body=body or Body(json.dumps(orders).encode()),
            sink=sink or Sink(),
        )

    async def ask(self, function: FunctionSpec, **orders: Any) -> str:
        """Make a call; the text of its answer."""
        sink = Sink()
        call = self.call(function, sink, **orders)
        self.submitted += 1
        await self.agent.submit(call)
        assert sink.completed == len(sink.heads) == 1
        return sink.body.decode()

    def start(self, function: FunctionSpec, **orders: Any) -> asyncio.Task[str]:
        """Make a call in the background."""
        return asyncio.ensure_future(self.ask(function, **orders))

    def statuses(self) -> list[str]:
        """What was recorded, in order."""
        return [one.call.status for one in self.records.ended]


async def settle() -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(50):
        await asyncio.sleep(0)


async def play_out(play: Any, steps: Iterable[Any]) -> None:
    """Take the steps of a property, then finish, and check after each. ``play.calls`` are those under way."""
    try:
        for step in steps:
            await play.step(*step)
            play.check()
        await play.finish()
        play.check()
    finally:
        for _, task in play.calls:
            task.cancel()
        await asyncio.gather(*[task for _, task in play.calls], return_exceptions=True)
        await settle()


@contextlib.asynccontextmanager
async def bench(
    total: Amount = TOTAL, images: Mapping[str, Plan] | None = None, limits: RouteLimits = LIMITS, **options: Any
) -> AsyncIterator[Bench]:
    """A bench; leaving it checks that nothing is left."""
    clock = VirtualClock()
    driver = FakeDriver(clock, {"obey": Script(main=OBEDIENT), **(images or {})})
    records = Records()
    ids = itertools.count(1 << 40)
    async with Agent(driver, records, clock, total=total, next_id=lambda: encode(next(ids)), **options) as agent:
        made = Bench(agent, driver, records, clock, limits)
        yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await driver.close()
    assert (driver.counts.alive, driver.containers) == (0, {})
    assert agent.pool.resources.used == Amount(0, 0)
    assert agent.pool.resources.waiting == 0
    counts = agent.pool.containers
    assert {name: count for name, count in counts.items() if name != "done"} == dict.fromkeys(
        ("wait", "start", "idle", "busy"), 0
    )
    assert (agent.stats.total.queue, agent.stats.total.running) == (0, 0)
    leftover = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leftover, leftover
