"""Requests with an idempotency key on one node: who waits, for how long, and how long a claim is held."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.virtual_time import VirtualClock, run

from hearth.agent.call import ClientGone
from hearth.models.call_result import CallResult
from hearth.models.errors import IdempotencyKeyBusy, InternalError, ServerBusy, StoreUnavailable
from hearth.models.function import Amount, FunctionRef, FunctionSpec
from hearth.models.idempotency import RENEWAL_S, Claim, KeyEnd, KeyState, StoredKey
from hearth.server.http.exchange import Arrival
from hearth.server.keyed_calls import HeldKey, KeyedCalls, KeyedRequest

REF = FunctionRef(id="A/f", app_id="A", app_name="app", name="/f")


class Store:
    """One key, as all nodes have it."""

    def __init__(self) -> None:
        self.claim_of: Claim | None = None
        self.ends: list[KeyEnd] = []
        self.states: list[KeyState | None] = []
        self.renewals: list[Sequence[tuple[str, str]]] = []
        self.failure: InternalError | None = None

    async def claim(self, claim: Claim) -> StoredKey:
        first = self.claim_of = self.claim_of or claim
        fields: dict[str, Any] = {"call_id": first.call_id, "fingerprint": first.fingerprint}
        if self.ends:
            return StoredKey(**fields, state=KeyState.DONE, result=self.ends[0].result)
        return StoredKey(**fields, state=first.state, is_held=first is claim)

    async def renew(self, held: Sequence[tuple[str, str]]) -> None:
        self.renewals.append(held)
        if self.failure is not None:
            raise self.failure

    async def end(self, end: KeyEnd) -> bool:
        if self.failure is not None:
            raise self.failure
        self.states.append(end.state)
        if end.state is None:
            self.claim_of = None
        else:
            self.ends.append(end)
        return True


class Exchange:
    """What a wait needs of a request."""

    def __init__(self) -> None:
        self.watcher: asyncio.Task[Any] | None = None
        self.arrival = Arrival.WHOLE

    def leave(self) -> None:
        self.arrival = Arrival.GONE
        assert self.watcher is not None
        self.watcher.cancel()


class World:
    """A node, and a function whose calls take at most 30 seconds."""

    def __init__(self, *, is_sync: bool = False) -> None:
        self.store, self.clock = Store(), VirtualClock()
        self.keyed = KeyedCalls(self.store, self.clock, max_bytes=100)
        self.exchange = Exchange()
        self.spec = FunctionSpec(
            ref=REF,
            image="f:1",
            contract="http",
            amount=Amount(1, 0),
            timeout_s=30,
            idle_timeout_s=1,
            is_sync=is_sync,
            environment={},
            container_labels={},
        )

    async def claim(self, call_id: str) -> HeldKey | StoredKey:
        request = KeyedRequest(["key"], self.spec, "POST", b"", (), None, self.exchange)  # type: ignore[arg-type]
        return await self.keyed.claim(request, call_id)

    async def first(self) -> HeldKey:
        held = await self.claim("A")
        assert isinstance(held, HeldKey)
        return held


def test_a_repetition_waits_no_longer_than_its_function_may_take() -> None:
    async def main() -> None:
        world = World()
        await world.first()
        with pytest.raises(IdempotencyKeyBusy):
            await world.claim("B")
        assert world.clock.monotonic() == 30.0
        await world.keyed.close()

    run(main())


def test_a_repetition_on_the_same_node_has_the_answer_at_once() -> None:
    async def main() -> None:
        world = World()
        held = await world.first()
        again = asyncio.ensure_future(world.claim("B"))
        world.clock.call_at(10.1, held.accepted, 202, [(b"location", b"/x")], b"body")
        world.clock.call_at(10.1, lambda: asyncio.ensure_future(held.settle(None)))
        stored = await again
        assert isinstance(stored, StoredKey)
        assert world.clock.monotonic() == 10.1
        assert isinstance(stored.result, CallResult)
        assert (stored.call_id, stored.result.status, stored.result.body) == ("A", 202, b"body")
        assert stored.result.headers == (("location", "/x"),)
        await world.keyed.close()

    run(main())


def test_a_repetition_is_the_first_request_if_that_had_no_effect() -> None:
    async def main() -> None:
        world = World(is_sync=True)
        held = await world.first()
        again = asyncio.ensure_future(world.claim("B"))
        await asyncio.sleep(1)
        await held.settle(ServerBusy())
        assert (await again).call_id == "B"
        await world.keyed.close()

    run(main())


@pytest.mark.parametrize(
    ("error", "state"), [(ServerBusy(), None), (ClientGone(), None), (StoreUnavailable("away"), KeyState.ACCEPTING)]
)
def test_a_refusal_frees_a_key_and_a_breakdown_of_the_queue_keeps_its_call(
    error: Exception, state: KeyState | None
) -> None:
    async def main() -> None:
        world = World()
        held = await world.first()
        await held.settle(error)
        assert world.store.states == [state]
        await world.keyed.close()

    run(main())


def test_claims_are_renewed_while_their_requests_run() -> None:
    async def main() -> None:
        world = World()
        held = await world.first()
        await asyncio.sleep(3.5 * RENEWAL_S)
        assert world.store.renewals == [[(held.id, "A")]] * 3
        world.store.failure = StoreUnavailable("away")
        await asyncio.sleep(RENEWAL_S)
        assert len(world.store.renewals) == 4, "the next renewal may succeed"
        await held.settle(None)  # its caller is answered all the same
        await asyncio.sleep(2 * RENEWAL_S)
        assert len(world.store.renewals) == 4
        await world.keyed.close()

    run(main())


def test_a_node_that_stops_and_a_client_that_leaves_end_a_wait() -> None:
    async def main() -> None:
        world = World()
        await world.first()
        waiting = asyncio.ensure_future(world.claim("B"))
        await asyncio.sleep(1)
        world.exchange.leave()
        with pytest.raises(ClientGone):
            await waiting
        world.exchange.arrival = Arrival.WHOLE
        waiting = asyncio.ensure_future(world.claim("B"))
        await asyncio.sleep(1)
        began = world.clock.monotonic()
        world.keyed.stop()
        with pytest.raises(ServerBusy):
            await waiting
        assert world.clock.monotonic() == began
        await world.keyed.close()

    run(main())
