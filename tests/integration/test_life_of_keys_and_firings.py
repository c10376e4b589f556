"""Requests with one key, and firings of a schedule, on nodes that die at any step: each becomes one call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.clock import FakeClock
from tests.support.dying import Dying, Killed

from hearth.access.local import LocalAcceptedCalls, LocalIdempotencyKeys
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.function import Amount, FunctionRef, FunctionSpec
from hearth.models.idempotency import LEASE_S
from hearth.models.ids import IdGenerator
from hearth.models.route import Route
from hearth.models.schedule import ALL, Definition, schedule_of
from hearth.models.timing import Timing
from hearth.queues.open import open_queue
from hearth.schedules.scheduler import TAKE_OVER_S, Scheduler
from hearth.server.http.exchange import Arrival
from hearth.server.keyed_calls import HeldKey, KeyedCalls, KeyedRequest
from hearth.server.scheduled_calls import ScheduledCalls
from hearth.stores.datastore import Datastore
from hearth.stores.sql import open_datastore
from hearth.telemetry.node import Telemetry

SPEC = FunctionSpec(
    ref=FunctionRef(id="A/f", app_id="A", app_name="a", name="/f"),
    image="f:1",
    contract="http",
    amount=Amount(1, 0),
    timeout_s=30,
    idle_timeout_s=1,
    is_sync=False,
    environment={},
    container_labels={},
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What happens.

    Attributes:
        requests: The steps at which the nodes die that get the same request one after the other; ``None``: it lives.
        is_together: Whether the first two get it at once.
        looks: The steps at which nodes die that look at the schedules; a minute passes between two looks.
    """

    requests: list[int | None]
    is_together: bool
    looks: list[int | None]


DEATHS = st.none() | st.integers(1, 14)
PLANS = st.builds(Plan, st.lists(DEATHS, min_size=2, max_size=4), st.booleans(), st.lists(DEATHS, max_size=5))


class Exchange:
    """What a wait needs of a request."""

    watcher: asyncio.Task[Any] | None = None
    arrival = Arrival.WHOLE


def dies_at(death: int | None) -> Callable[[str], bool]:
    """Return a node's fate: it dies at this step, and takes none after that."""
    steps = Counter[str]()

    def dies(step: str) -> bool:
        steps["taken"] += 1
        return death is not None and steps["taken"] >= death

    return dies


class Life:
    """Plays a plan on one database and one queue."""

    def __init__(self, store: Datastore, accepted: LocalAcceptedCalls, queue: Any, clock: FakeClock) -> None:
        self._store, self._accepted, self._queue, self._clock = store, accepted, queue, clock
        self._next_id = IdGenerator(1, clock.now_ns)
        self.answers: set[str] = set()

    async def request(self, death: int | None) -> None:
        """Send the request to a node, which accepts it as a node does."""
        dies = dies_at(death)
        keyed = KeyedCalls(LocalIdempotencyKeys(Dying(self._store, dies), self._clock), self._clock, 100)  # type: ignore[arg-type]
        accepted = Dying(self._accepted, dies)
        request = KeyedRequest(["key"], SPEC, "POST", b"", (), None, Exchange())  # type: ignore[arg-type]
        try:
            held = await keyed.claim(request, self._next_id())
            if isinstance(held, HeldKey):
                if not held.is_accepted:
                    call = Call.of(SPEC, held.call_id, self._clock.now(), method="POST", url="", headers={})
                    call.status = QUEUED
                    await accepted.enqueue(call)
                held.accepted(202, [], b"")
                await held.settle(None)
            self.answers.add(held.call_id)
        except Killed:
            pass
        finally:
            await keyed.close()

    async def look(self, death: int | None) -> None:
        """Let a node look at the schedules."""
        dies = dies_at(death)
        store, accepted = Dying(self._store, dies), Dying(self._accepted, dies)
        make_call = ScheduledCalls(self._store, self._store).make
        stub: Any = (store, self._store, accepted, make_call, self._clock, self._next_id, Telemetry())
        with contextlib.suppress(Killed, ExceptionGroup):
            await Scheduler(*stub).look()

    async def play(self, plan: Plan) -> None:
        """Guards: the claim of a key is a row; a claim that is taken over makes the same call; so does a firing."""
        now, timing = self._clock.now(), Timing(every="1m")
        rule = Definition(function="/f", timing=timing, if_missed=ALL)
        await self._store.put_schedule(
            "a", "s", lambda app_id, old: schedule_of(rule, "a", app_id, "s", old, "id", now)
        )
        async with self._time_passes():
            together = 2 if plan.is_together else 1
            await asyncio.gather(*[self.request(death) for death in plan.requests[:together]])
            for death in plan.requests[together:]:
                await self.request(death)
            await self.request(None)
        for death in [*plan.looks, None, None, None]:
            self._clock.advance(TAKE_OVER_S + 1)
            await self.look(death)
        firings = timing.newest(now + dt.timedelta(seconds=1), self._clock.now(), now, 1000)
        calls = [one.call for one in await self._queue.reserve(1000)]
        fired = Counter(call.headers["Fn-Schedule-Time"][0] for call in calls if call.origin)
        assert {call.id for call in calls if not call.origin} == self.answers
        assert len(self.answers) == 1
        assert (len(fired), set(fired.values())) == (len(firings), {1})

    @contextlib.asynccontextmanager
    async def _time_passes(self) -> AsyncIterator[None]:
        """Let leases of dead nodes end."""

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.005)
                self._clock.advance(LEASE_S / 4)

        ticking = asyncio.ensure_future(tick())
        try:
            yield
        finally:
            ticking.cancel()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an app and a route."""
    file = tmp_path_factory.mktemp("template") / "fn.db"

    async def fill() -> None:
        store = await open_datastore(f"sqlite3://{file}")
        await store.insert_app(App(name="a", id="A"))
        await store.insert_route(Route(app_name="a", path="/f", image="f:1"))
        await store.close()

    asyncio.run(fill())
    return file


@given(plan=PLANS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_key_and_a_firing_are_one_call_wherever_nodes_die(template: Path, plan: Plan) -> None:
    async def play() -> None:
        file = template.with_name("played.db")
        for old in template.parent.glob("played.db*"):
            old.unlink()
        shutil.copy(template, file)
        clock = FakeClock()
        store, queue = await open_datastore(f"sqlite3://{file}"), await open_queue("memory://", clock)
        accepted = LocalAcceptedCalls(queue, store, clock)
        try:
            await Life(store, accepted, queue, clock).play(plan)
        finally:
            await accepted.close()
            await queue.close()
            await store.close()

    asyncio.run(play())
