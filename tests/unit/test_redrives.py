"""A redrive makes a call of the function as it is now, with the request as it was."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.support.clock import FakeClock

from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.dead_letter import DeadLetter
from hearth.models.delivery import Delivery
from hearth.models.destination import DEPTH, callback_of
from hearth.models.retry import RetryPolicy
from hearth.models.route import LIMITS, Route
from hearth.models.secret import FILES
from hearth.server.redrives import Redrives

DEAD = Call(
    id="old",
    app_name="a",
    path="/p",
    status="error",
    image="old:1",
    memory=64,
    method="PUT",
    url="http://h/r/a/p?x=1",
    headers={"X-Mine": ["1"], "Fn-Delay": ["3600"], "Fn-Attempt": ["3"]},
    error="it failed",
    attempt=3,
    priority=2,
    trigger_id="t",
    dead=True,
)


class World:
    """A dead letter, its app and its route, and what is accepted."""

    def __init__(self) -> None:
        self.accepted: list[Call] = []
        self.letter, self.payload = DEAD, b"payload"

    async def get_app(self, name: str) -> App:
        return App(name=name, id="app id", secrets=("OF_APP",))

    async def get_route(self, app_name: str, path: str) -> Route:
        rules = Delivery(retry=RetryPolicy(attempts=5), expires_s=60, max_concurrent_async=2)
        own: dict[str, Any] = {"secrets": ("OWN",), "secrets_as": FILES, "headers": {"X-Route": ["r"]}}
        return Route(app_name=app_name, path=path, image="new:2", memory=256, delivery=rules, **own)

    async def get_dead_letter(self, app_name: str, call_id: str) -> tuple[DeadLetter, bytes]:
        return DeadLetter(self.letter, len(self.payload)), self.payload

    async def claim_dead_letter(self, app_name: str, call_id: str, redriven_as: str) -> str:
        return redriven_as

    async def remove_dead_letter(self, app_name: str, call_id: str) -> bool:
        return True

    async def enqueue(self, call: Call) -> None:
        self.accepted.append(call)


async def test_the_request_stays_and_the_function_is_the_present_one() -> None:
    world, clock = World(), FakeClock()
    stub: Any = world
    redrives = Redrives(stub, stub, stub, stub, clock, lambda: "new", LIMITS)
    assert await redrives.redrive("a", "old") == "new"
    (call,) = world.accepted
    assert (call.id, call.status, call.origin, call.error, call.dead) == ("new", QUEUED, "redrive old", "", False)
    assert (call.method, call.url, call.headers) == ("PUT", DEAD.url, {"X-Mine": ["1"]})
    assert (call.payload, call.priority, call.trigger_id) == (b"payload", 2, "t")
    assert (call.image, call.memory, call.app_id, call.type) == ("new:2", 256, "app id", "async")
    assert (call.secrets, call.secrets_as) == (["OF_APP", "OWN"], FILES)
    assert (call.attempt, call.retry, call.max_concurrent) == (1, RetryPolicy(attempts=5), 2)
    assert (call.delay, call.result_headers) == (0, (("x-route", "r"),))
    assert (call.expires_at - call.created_at).total_seconds() == 60


async def test_a_record_that_has_not_arrived_is_sent_again() -> None:
    message = Call(id="01C", app_name="a", path="/f", on_success="https://x/ok", headers={DEPTH: ["2"]})
    done = msgspec.structs.replace(message, status="success")
    callback = callback_of(message, done, None, FakeClock().now(), "https://node")
    assert callback is not None
    failed = msgspec.structs.replace(
        callback, attempt=8, status="error", error="the destination answered 500", dead=True
    )
    world, clock = World(), FakeClock()
    world.letter, world.payload = failed, callback.payload
    stub: Any = world
    redrives = Redrives(stub, stub, stub, stub, clock, lambda: "new", LIMITS)
    assert await redrives.redrive("a", failed.id) == "new"
    (call,) = world.accepted
    stays = {
        name: getattr(callback, name) for name in ("path", "url", "payload", "format", "method", "headers", "retry")
    }
    assert {name: getattr(call, name) for name in stays} == stays
    assert (call.id, call.attempt, call.status, call.error, call.dead) == ("new", 1, QUEUED, "", False)
    assert (call.origin, call.app_id, call.type) == (f"redrive {failed.id}", "app id", "async")
