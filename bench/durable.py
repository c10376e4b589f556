"""What retries that are not used, and results, cost an async call: microseconds of the process that runs it.

``python -m bench.durable [--calls 100] [--rounds 300]``. Queue, database, agent and consumer are those of a node; its
functions are scripted in the same process, so that nothing else is measured. In each round every variant accepts and
runs as many calls, in another order. A figure is the difference of the first deciles of two variants: whatever else the
machine does only adds to a round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import random
import statistics
import time
from collections.abc import AsyncIterator
from typing import Final
from unittest import mock

import uvloop
from tests.support.databases import folder

from hearth.access.local import LocalAcceptedCalls, LocalCallRecords
from hearth.agent import agent as agent_module
from hearth.agent.agent import Agent
from hearth.aio.clock import SystemClock, pause
from hearth.async_calls.consumer import Consumer
from hearth.drivers.base import ContainerSpec
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.delivery import NO_RULES, Delivery
from hearth.models.function import Amount
from hearth.models.ids import IdGenerator
from hearth.models.retry import RetryPolicy
from hearth.models.route import LIMITS, Route
from hearth.queues.open import open_queue
from hearth.server.api_v1.compile import compile_route
from hearth.server.api_v1.functions import Functions
from hearth.server.delays import deliver
from hearth.stores.sql import open_datastore
from hearth.telemetry import logs
from hearth.testing.script import Pipe, Script
from hearth.testing.scripted_driver import FakeDriver

CLOCK: Final = SystemClock()
APP: Final = App(name="a", id="A")
BODY: Final = b'{"echo":"x"}'
HEADERS: Final = {"User-Agent": ["curl/8.5.0"], "Accept": ["*/*"], "Content-Type": ["application/json"]}
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: Calls that are accepted at once, and seconds in which the last records and messages of a round are settled.
_AT_ONCE, _SETTLE_S = 50, 0.05
#: The most that each may cost, in microseconds of a processor.
RETRIES_US, RESULT_US = 3.0, 20.0


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is measured: calls with these rules, whose results are kept."""

    rules: Delivery = NO_RULES
    results: bool = True


VARIANTS: Final = {
    "plain": Variant(),
    "control": Variant(),
    "retries": Variant(Delivery(retry=RetryPolicy(attempts=5))),
    "no results": Variant(results=False),
}


class Bench:
    """An agent and a consumer over stores of their own."""

    def __init__(self, accepted: LocalAcceptedCalls, agent: Agent) -> None:
        self._accepted = accepted
        self._agent = agent
        self._next_id = IdGenerator(1, CLOCK.now_ns)
        route = Route(app_name="a", path="/f", image="function", type="async", format="http", memory=64, timeout=60)
        self._spec = compile_route(APP, route, LIMITS)

    async def cost_us(self, variant: Variant, count: int) -> float:
        """Accept and run so many calls; return the microseconds of the process for each."""
        ended = self._agent.stats.total.complete + count
        begun = time.process_time()
        with contextlib.ExitStack() as stack:
            if not variant.results:
                stack.enter_context(mock.patch.object(agent_module, "answer_result", return_value=None))
            for _ in range(0, count, _AT_ONCE):
                await asyncio.gather(*[self._accepted.enqueue(self._call(variant)) for _ in range(_AT_ONCE)])
            while self._agent.stats.total.complete < ended:
                await pause(CLOCK, 0.01)
            await pause(CLOCK, _SETTLE_S)
        return (time.process_time() - begun) * 1e6 / count

    def _call(self, variant: Variant) -> Call:
        url = "http://127.0.0.1/r/a/f"
        call = Call.of(self._spec, self._next_id(), CLOCK.now(), method="POST", url=url, headers=dict(HEADERS))
        call.status, call.payload = QUEUED, BODY
        deliver(call, variant.rules, ())
        return call


def _script(spec: ContainerSpec) -> Script:
    async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        received = b""
        while data := await stdin.read():
            received += data
            if received.endswith(BODY):
                received = b""
                await stdout.write(ANSWER)
        return 0

    return Script(main=main)


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    """Open stores on a file in memory, with an agent and a consumer."""
    with folder() as place:
        store, queue = await open_datastore(f"sqlite3://{place}/fn.db"), await open_queue(f"bolt://{place}/mq", CLOCK)
        await store.insert_app(APP)
        records, accepted = LocalCallRecords(store), LocalAcceptedCalls(queue, store, CLOCK)
        driver = FakeDriver(CLOCK, {"function": _script})
        next_id = IdGenerator(2, CLOCK.now_ns)
        async with Agent(driver, records, CLOCK, total=Amount(8 * 64, 1_000_000), next_id=next_id) as agent:
            functions = Functions(agent.pool, store)
            async with Consumer(agent, records, accepted, CLOCK, functions.of_call) as consumer:
                yield Bench(accepted, agent)
                consumer.stop()
                agent.drain()
        await driver.close()
        await records.close()
        await accepted.close()
        await queue.close()
        await store.close()


async def measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Return what a call costs, by variant and round."""
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    names = list(VARIANTS)
    async with opened() as bench:
        await bench.cost_us(VARIANTS["plain"], 2 * count)  # starts containers and compiles statements
        gc.collect()
        gc.freeze()
        chance = random.Random(1)
        for _ in range(rounds):
            chance.shuffle(names)
            for name in names:
                found[name].append(await bench.cost_us(VARIANTS[name], count))
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=300)
    given = parser.parse_args()
    logs.configure("error")
    found = uvloop.run(measure(given.calls, given.rounds))
    least = {name: statistics.quantiles(costs, n=10)[0] for name, costs in found.items()}
    base = min(least["plain"], least["control"])
    print(f"an accepted call: {least['plain']:.0f} us, in the median {statistics.median(found['plain']):.0f} us")
    print(f"the same call again: {least['control'] - least['plain']:.1f} us, the error of this measurement")
    retries, result = least["retries"] - base, base - least["no results"]
    print(f"retries that are not used: {retries:.1f} us (limit {RETRIES_US:g})")
    print(f"a result: {result:.1f} us (limit {RESULT_US:g})")


if __name__ == "__main__":
    main()
