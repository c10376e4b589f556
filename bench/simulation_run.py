"""The real agent over scripted containers in virtual time, under a drawn load."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import random
import re
import time
from collections.abc import Callable
from typing import Final
from unittest import mock

from tests.support.agent import Records
from tests.support.virtual_time import VirtualClock, VirtualLoop

from bench.simulation_load import Arrival, Load, arrivals, routes
from hearth.access.base import EndedCall
from hearth.agent import pool as pool_module
from hearth.agent.accepted import StoredBody
from hearth.agent.agent import Agent
from hearth.agent.resources import ResourceTracker
from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.simple import SimplePolicy
from hearth.contracts.base import Head
from hearth.drivers.base import ContainerSpec
from hearth.models.app import App
from hearth.models.errors import CallTimeout, ServerBusy
from hearth.models.function import Amount, FunctionSpec
from hearth.models.ids import encode
from hearth.models.route import LIMITS
from hearth.server.api_v1.compile import compile_route
from hearth.testing.script import Pipe, Script, Step
from hearth.testing.scripted_driver import FakeDriver

ADAPTIVE: Final = AdaptivePolicy()
#: Scaling policies by name.
SCALING: Final[dict[str, ScalingPolicy]] = {"adaptive": ADAPTIVE, "simple": SimplePolicy()}

_APP: Final = App(name="simulation")
_ANSWERS: Final = {"http": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "json": b'{"body":"ok"}\n'}
#: A whole request: the time that it takes is its body.
_SERVICES: Final = {
    "http": re.compile(rb"service=([0-9]+[.][0-9]{6})"),
    "json": re.compile(rb"service=([0-9]+[.][0-9]{6}).*\n\n", re.DOTALL),
}
_START_S: Final = (0.05, 0.3)
_STARTS_AT_ONCE: Final = 512
_LOOK_EVERY_S: Final = 0.05
#: Async calls that may wait for a container at once; the others wait in the backlog.
_ASYNC_AT_ONCE: Final = 64


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of one call: seconds it waited, and the status of its answer."""

    function: int
    waited_s: float
    answer: int


@dataclasses.dataclass(slots=True)
class Result:
    """What one run showed.

    Attributes:
        outcomes: Of the calls that came after the warm-up.
        memory: Seconds, MiB granted, and MiB of containers that had a call, sampled.
        evictions: Containers removed while calls came: none is idle for long enough to end by itself.
        backlog: Async calls that were not taken on.
        peak_mib: Memory of containers that existed at once; the driver's own count.
    """

    order: str
    total_mib: int
    calls: int = 0
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    memory: list[tuple[float, int, int]] = dataclasses.field(default_factory=list)
    starts: int = 0
    evictions: int = 0
    peak_mib: int = 0
    backlog: int = 0
    real_s: float = 0.0


class _Sink:
    """A client that counts nothing."""

    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started = False

    def head(self, head: Head) -> None:
        """The status is of no interest."""

    def answer(self, head: Head, body: bytes) -> None:
        """Nor is a whole answer."""
        self.started = True

    async def write(self, data: bytes, *, last: bool) -> None:
        """Nor is the body."""
        self.started = True

    def complete(self) -> None:
        """Nor is its end."""


class _Forgetful(Records):
    """Keeps no records."""

    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Stored at once."""


class Simulation:
    """One run: one load, one order, one scaling policy."""

    def __init__(
        self,
        load: Load,
        order: str,
        tracker: Callable[..., ResourceTracker],
        scaling: ScalingPolicy = ADAPTIVE,
    ) -> None:
        self._load = load
        self._routes = routes(load)
        total = int(sum(route.memory for route in self._routes) * load.memory_share)
        self._tracker = tracker
        self._scaling = scaling
        self._result = Result(order, total)
        self._draw = random.Random(f"starts {load.seed}")
        self._ids = itertools.count(1)
        self._backlog: collections.deque[Arrival] = collections.deque()
        self._async_calls = 0
        self._clock = VirtualClock()
        self._busy_mib = 0

    def run(self) -> Result:
        """Run it, in virtual time."""
        begun = time.perf_counter()
        random.seed(self._load.seed)  # the agent's own jitter
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(self._run())
        self._result.real_s = time.perf_counter() - begun
        return self._result

    async def _run(self) -> None:
        driver = FakeDriver(self._clock, {"function": self._script})
        total = Amount(self._result.total_mib, 1_000_000)
        with mock.patch.object(pool_module, "ResourceTracker", self._tracker):
            agent = Agent(
                driver,
                _Forgetful(),
                self._clock,
                total=total,
                next_id=self._next_id,
                max_starts=_STARTS_AT_ONCE,
                scaling=self._scaling,
            )
        async with agent:
            functions = [compile_route(_APP, route, LIMITS) for route in self._routes]
            async with asyncio.TaskGroup() as calls:
                looking = calls.create_task(self._look(agent))
                await self._offer(agent, functions, calls)
                looking.cancel()
            self._result.evictions = driver.counts.removed
        await driver.close()
        self._result.starts = driver.counts.started
        self._result.peak_mib = driver.counts.peak_memory_mib

    async def _offer(self, agent: Agent, functions: list[FunctionSpec], calls: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        for arrival in arrivals(self._load):
            if arrival.at > loop.time():
                await asyncio.sleep(arrival.at - loop.time())
            if functions[arrival.function].is_sync:
                calls.create_task(self._call(agent, functions[arrival.function], arrival))
                continue
            self._backlog.append(arrival)
            while self._backlog and self._async_calls < _ASYNC_AT_ONCE and agent.pool.has_async_room():
                taken = self._backlog.popleft()
                self._async_calls += 1
                task = calls.create_task(self._call(agent, functions[taken.function], taken))
                task.add_done_callback(self._async_ended)
        self._result.backlog = len(self._backlog)

    def _async_ended(self, task: asyncio.Task[None]) -> None:
        self._async_calls -= 1

    async def _call(self, agent: Agent, function: FunctionSpec, arrival: Arrival) -> None:
        body = b"service=%.6f" % arrival.service_s
        url = "http://node/r/simulation"
        call = agent.new_call(
            function, self._next_id(), method="POST", url=url, headers={}, body=StoredBody(body), sink=_Sink()
        )
        answer = 200
        try:
            await agent.submit(call)
        except (ServerBusy, CallTimeout) as refused:
            answer = refused.status
        self._result.calls += 1
        if arrival.at >= self._load.warm_up_s:
            self._result.outcomes.append(Outcome(arrival.function, call.waited_s, answer))

    async def _look(self, agent: Agent) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._result.memory.append((self._clock.monotonic(), agent.pool.resources.used.memory_mib, self._busy_mib))

    def _script(self, spec: ContainerSpec) -> Script:
        async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
            contract = spec.env["FN_FORMAT"]
            received = b""
            while data := await stdin.read():
                received += data
                service = _SERVICES[contract].search(received)
                if service is None:
                    continue  # a new container is sent the first byte alone
                received = b""
                self._busy_mib += spec.memory_mib
                try:
                    await asyncio.sleep(float(service[1]))
                finally:
                    self._busy_mib -= spec.memory_mib
                await stdout.write(_ANSWERS[contract])
            return 0

        start = Step(delay_s=self._draw.uniform(*_START_S))
        return Script(main=main, start=start, remove=Step(delay_s=self._load.removal_s))

    def _next_id(self) -> str:
        return encode(next(self._ids))
