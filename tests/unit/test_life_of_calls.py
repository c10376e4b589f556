"""The life of calls with attempts, cancels, redrives and the death of a node at any step: what never happens."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.async_world import AsyncWorld, Faults, away, call
from tests.support.clock import FakeClock

from hearth.models.app import App
from hearth.models.call import CANCELLED, ERROR, FINAL, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.delivery import Delivery
from hearth.models.errors import DeadLetterNotFound, HearthError
from hearth.models.retry import NONE, RetryPolicy
from hearth.models.route import LIMITS, Route
from hearth.queues.open import open_queue
from hearth.server.redrives import Redrives

VISIBILITY_S = 2.0
IDS = ("a", "b", "c")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What happens to three calls.

    Attributes:
        attempts: How often each is run at most.
        failing: The attempts of each that fail.
        interrupted: Whether a call runs again whose node died.
        death: The step at which the first node dies; ``None``: it stops.
        cancels: Calls that are cancelled, by the step at which they are.
        redrive_breaks: The step of a redrive that fails once; empty: none does.
    """

    attempts: int
    failing: dict[str, frozenset[int]]
    interrupted: bool
    death: int | None
    cancels: dict[int, str]
    redrive_breaks: str


PLANS = st.builds(
    Plan,
    attempts=st.integers(1, 3),
    failing=st.fixed_dictionaries({one: st.frozensets(st.integers(1, 3)) for one in IDS}),
    interrupted=st.booleans(),
    death=st.none() | st.integers(1, 60),
    cancels=st.dictionaries(st.integers(1, 60), st.sampled_from(IDS), max_size=2),
    redrive_breaks=st.sampled_from(["", "get_dead_letter", "claim_dead_letter", "add_calls", "remove_dead_letter"]),
)


class Mortal(Faults):
    """The steps of a node that dies: from then on it reaches no store and no queue."""

    def __init__(self, death: int | None) -> None:
        super().__init__()
        self.death = death
        self.steps = 0

    def pass_by(self, step: str) -> None:
        self.steps += 1
        super().pass_by(step)
        if self.death is not None and self.steps >= self.death:
            raise away()


class Definitions:
    """The app and its route, as they are when calls are run again."""

    async def get_app(self, name: str) -> App:
        return App(name=name)

    async def get_route(self, app_name: str, path: str) -> Route:
        retry = RetryPolicy(attempts=2, backoff_s=0)
        return Route(app_name=app_name, path=path, image="i", delivery=Delivery(retry=retry))


class Life:
    """Plays a plan, and looks at every step."""

    def __init__(self, world: AsyncWorld, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.cancelled: set[str] = set()
        self.attempts: list[tuple[str, int]] = []
        self._steps: Iterator[int] = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    def look(self) -> None:
        """Guard: records say queued, running or ended at every step, and an end stays."""
        for past in self.world.store.history.values():
            assert set(past) <= {QUEUED, RUNNING, *FINAL}
            assert not any(status in FINAL for status in past[:-1]), past
        if (call_id := self.plan.cancels.get(next(self._steps))) is not None:
            self._tasks.append(asyncio.ensure_future(self._cancel(call_id)))

    async def _cancel(self, call_id: str) -> None:
        if call_id in self.world.store.calls and await self.world.cancel(call_id):
            self.cancelled.add(call_id)

    async def play(self) -> None:
        on = ("error", *(["interrupted"] if self.plan.interrupted else []))
        policy = RetryPolicy(attempts=self.plan.attempts, backoff_s=0.5, jitter=NONE, on=on)
        for one in IDS:
            await self.world.accepted.enqueue(msgspec.structs.replace(call(one), retry=policy, attempt=1))
        mortal = Mortal(self.plan.death)
        mortal.look = self.world.faults.look = self.look
        async with self._time_passes(), self.world.node(faults=mortal) as agent:
            agent.failing = dict(self.plan.failing)
            await self.world.until(lambda: self._is_over(mortal))
        self.attempts += agent.attempts
        async with self.world.node() as agent:
            agent.failing = dict(self.plan.failing)
            await self.world.ended(*IDS, step_s=0.2)
        self.attempts += agent.attempts
        await asyncio.gather(*self._tasks)
        self.judge()
        await self.redrive()
        assert await self.world.is_empty()

    @contextlib.asynccontextmanager
    async def _time_passes(self) -> AsyncIterator[None]:
        """Let time pass, also while a node stops that waits for a store."""

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.002)
                self.world.clock.advance(0.1)

        ticking = asyncio.ensure_future(tick())
        try:
            yield
        finally:
            ticking.cancel()

    def _is_over(self, mortal: Mortal) -> bool:
        is_dead = mortal.death is not None and mortal.steps >= mortal.death
        return is_dead or all(self.world.store.status(one) in FINAL for one in IDS)

    def judge(self) -> None:
        assert len(set(self.attempts)) == len(self.attempts), "an attempt ran twice"
        for one in IDS:
            stored = self.world.store.calls[one]
            ran = [attempt for call_id, attempt in self.attempts if call_id == one]
            assert (stored.status == CANCELLED) == (one in self.cancelled)
            assert all(attempt <= self.plan.attempts for attempt in ran)
            assert (one in self.world.store.dead) == stored.dead == (stored.status == ERROR)
            if self.plan.death is None and stored.status != CANCELLED:
                good = next((n for n in range(1, self.plan.attempts + 1) if n not in self.plan.failing[one]), None)
                assert ran == list(range(1, (good or self.plan.attempts) + 1))
                assert stored.status == (ERROR if good is None else SUCCESS)
            if self.plan.interrupted and stored.status == ERROR:
                assert stored.attempt == self.plan.attempts, "it has attempts left"

    async def redrive(self) -> None:
        """Guards: the id of the new call is stored before the call is accepted, and the dead letter goes last."""
        definitions, ids = Definitions(), (f"new {number}" for number in itertools.count())
        accepted, clock = self.world.accepted, self.world.clock
        redrives = Redrives(
            self.world.store,  # type: ignore[arg-type]
            definitions,
            definitions,  # type: ignore[arg-type]
            accepted,
            clock,
            lambda: next(ids),
            LIMITS,
        )
        before = set(self.world.store.dead)
        for one in sorted(before):
            if self.plan.redrive_breaks:
                self.world.faults.once = {self.plan.redrive_breaks: away()}
            try:
                await redrives.redrive("a", one)
            except HearthError:  # as the node dies there; somebody repeats it
                await redrives.redrive("a", one)
            with pytest.raises(DeadLetterNotFound):
                await redrives.redrive("a", one)
        async with self.world.node() as agent:
            await self.world.until(lambda: all(len(self.made_of(one)) == 1 for one in before), step_s=0.2)
            await self.world.ended(*[self.made_of(one)[0].id for one in before], step_s=0.2)
        assert sorted(agent.attempts) == sorted((self.made_of(one)[0].id, 1) for one in before)
        assert not self.world.store.dead

    def made_of(self, call_id: str) -> list[Call]:
        return [one for one in self.world.store.calls.values() if one.origin == f"redrive {call_id}"]


@given(PLANS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_call_ends_once_whatever_happens_to_it(plan: Plan) -> None:
    async def play() -> None:
        clock = FakeClock()
        queue = await open_queue("memory://", clock, visibility_s=VISIBILITY_S)
        world = AsyncWorld(queue, clock)
        await Life(world, plan).play()
        await world.close()
        await queue.close()

    asyncio.run(play())
