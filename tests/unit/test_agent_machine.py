"""Random lives of a node: calls, clients that leave, deaths, hangs and failures, in any order (agent specification 14).

What must hold is checked after every step; :mod:`tests.support.agent` checks at the end that nothing is left. The last
tests take one guard out of the agent each: the same play must notice.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis
from hypothesis import strategies as st
from tests.support.agent import OBEDIENT, Bench, bench, play_out
from tests.support.virtual_time import run

from hearth.drivers.base import DriverError, Exit, StartFailed
from hearth.models.errors import HearthError
from hearth.models.function import NOTHING, Amount
from hearth.models.instances import Instances
from hearth.testing.script import Script, Step

TOTAL = Amount(1000, 8000)
MEMORY = (100, 300, 600, 1000)
NUMBER = st.integers(0, 11)
BOUNDS = [(0, None), (0, 1), (1, None), (1, 1), (2, 3), (9, None)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 3), st.sampled_from([0.0, 0.3, 4.0]), st.booleans()),
        st.tuples(st.just("bound"), st.integers(0, 3), st.sampled_from(BOUNDS)),
        st.tuples(st.sampled_from(["burst", "leave", "retry", "die", "hang", "release", "break", "change"]), NUMBER),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.05, 0.5, 3.0])),
    ),
    min_size=8,
    max_size=40,
)


class Play:
    """One random life of a node."""

    def __init__(self, on: Bench) -> None:
        self.on = on
        self.versions = [0] * 4
        self.calls: list[tuple[str, asyncio.Task[str]]] = []
        self.bounds: list[tuple[int, int | None]] = [(0, None)] * 4
        self.allowed = [0] * 4
        self.functions = [self.function(n) for n in range(4)]

    def function(self, number: int) -> Any:
        least, most = self.bounds[number]
        return self.on.function(
            f"/{number}",
            image=f"image{number}",
            memory=MEMORY[number],
            timeout=8,
            config={"V": str(self.versions[number])},
            instances=Instances(min_instances=least, max_instances=most),
        )

    async def step(self, action: str, *given: Any) -> None:
        getattr(self, f"do_{action}")(*given)
        if action == "pass":
            await asyncio.sleep(given[0])
        else:
            await asyncio.sleep(0)

    def do_pass(self, seconds: float) -> None: ...

    def do_call(self, number: int, sleep: float, exits: bool) -> None:
        text = f"answer {len(self.calls)}"
        orders = {"sleep": sleep, "echo": text, **({"exit": 1} if exits else {})}
        self.calls.append((text, self.on.start(self.functions[number], **orders)))

    def do_burst(self, number: int) -> None:
        for _ in range(number):
            self.do_call(number % 4, 0.3, False)

    def do_leave(self, number: int) -> None:
        if self.calls:
            self.calls[number % len(self.calls)][1].cancel()

    def do_retry(self, number: int) -> None:
        """A client hangs up, and calls again."""
        self.do_leave(number)
        self.do_call(number % 4, 0.3, False)

    def do_die(self, number: int) -> None:
        if alive := list(self.on.driver.containers.values()):
            alive[number % len(alive)].end(Exit(137))

    def do_hang(self, number: int) -> None:
        self.script(number).start.held = True

    def do_release(self, number: int) -> None:
        self.script(number).start.release()

    def do_break(self, number: int) -> None:
        script = self.script(number)
        script.start.error, script.start.failures = StartFailed("trouble"), 1
        script.remove.error, script.remove.failures = DriverError("trouble"), 1

    def do_change(self, number: int) -> None:
        self.versions[number % 4] += 1
        self.functions[number % 4] = self.function(number % 4)

    def do_bound(self, number: int, bounds: tuple[int, int | None]) -> None:
        self.bounds[number] = bounds
        self.allowed[number] = self.present(number)  # containers above a lower bound end after their calls
        self.functions[number] = self.function(number)

    def present(self, number: int) -> int:
        launchers = self.on.agent.pool.launchers.values()
        return sum(len(one.containers) for one in launchers if one.function.ref.name == f"/{number}")

    def script(self, number: int) -> Script:
        script = self.on.driver.images[f"image{number % 4}"]
        assert isinstance(script, Script)
        return script

    def check(self) -> None:
        """The invariants that hold at every moment."""
        agent, driver = self.on.agent, self.on.driver
        assert NOTHING.fits(agent.pool.resources.used), "less than nothing is granted"
        assert agent.pool.resources.used.fits(TOTAL), "more is granted than there is"
        assert driver.counts.memory_mib <= agent.pool.resources.used.memory_mib, "memory was given out twice"
        assert all(count >= 0 for count in agent.pool.containers.values())
        total = agent.stats.total
        assert min(total.queue, total.running) >= 0
        done = total.complete + total.failed + total.busy
        assert total.queue + total.running + done == self.on.submitted, "a call is counted twice, or not at all"
        alive = [0] * 4
        for container in driver.containers.values():
            alive[int(container.spec.labels["path"][1:])] += 1
        for number, (_, most) in enumerate(self.bounds):
            self.allowed[number] = min(self.allowed[number], self.present(number))
            assert most is None or alive[number] <= max(most, self.allowed[number]), "more containers than there may be"
        standby = set()
        for launcher in agent.pool.launchers.values():
            queue = launcher.queue
            assert not (queue.free and queue.waiters), "a waiter and an idle slot"
            idle = [hot for hot in launcher.containers if hot.state.value == "idle" and not hot.is_leaving]
            assert sorted(idle, key=id) == sorted(queue.free, key=id), "a slot is lost"
            standby |= set(idle)
        assert standby == set(agent.pool.host.standby.idle), "an idle container cannot give way, or a busy one may"

    async def finish(self) -> None:
        """Let every call end, and check that each got its own answer."""
        for number in range(4):
            script = self.script(number)
            script.start.release()
            script.start.failures = script.remove.failures = 0
        await asyncio.sleep(20)
        for text, task in self.calls:
            assert task.done(), "a call never ended"
            if not task.cancelled() and task.exception() is None:
                assert task.result() == text, "somebody else's answer"
            elif not task.cancelled():
                assert isinstance(task.exception(), HearthError), task.exception()
        for function in self.functions:  # nothing that happened keeps anybody from being served
            assert await self.on.ask(function, echo="still here") == "still here"
        await asyncio.sleep(20)
        for launcher in self.on.agent.pool.launchers.values():
            assert not launcher.lacks, "a container that is to be kept ready is missing"


async def _play(steps: list[Any]) -> None:
    images: dict[str, Any] = {
        f"image{n}": Script(
            main=OBEDIENT,
            create=Step(delay_s=0.02),
            start=Step(delay_s=0.05 * n),
            remove=Step(delay_s=0.03 * n),
        )
        for n in range(4)
    }
    async with bench(total=TOTAL, images=images) as on:
        await play_out(Play(on), steps)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(steps=STEPS)
def test_whatever_happens_calls_get_their_own_answers_and_nothing_is_lost(steps: list[Any]) -> None:
    run(_play(steps))
