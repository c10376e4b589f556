"""The requests of runners, Fn's own and Hearth's, over a real queue and a real database."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import ASGIApp
from tests.support.door import guarded

from hearth.access.base import EndedCall
from hearth.access.local import LocalAcceptedCalls, LocalCallRecords, LocalIdempotencyKeys
from hearth.access.remote import protocol
from hearth.aio.clock import SystemClock
from hearth.async_calls.dispatcher import Dispatcher
from hearth.models.app import App
from hearth.models.call import ERROR, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.models.log_reader import read_all
from hearth.models.message import decode_call
from hearth.models.retry import Attempt
from hearth.models.route import Route
from hearth.queues.base import Queue, Reserved
from hearth.queues.message_file import NewMessage
from hearth.queues.open import open_queue
from hearth.server.api import Api
from hearth.server.runner_api import RunnerApi
from hearth.stores.sql import SqlDatastore

CLOCK = SystemClock()


class World:
    """An API with its queue and its database."""

    def __init__(self, queue: Queue, datastore: SqlDatastore) -> None:
        self.queue, self.datastore = queue, datastore
        self.records, self.accepted = LocalCallRecords(datastore), LocalAcceptedCalls(queue, datastore, CLOCK)
        self.dispatcher = Dispatcher(self.accepted, CLOCK)
        self.http: httpx.AsyncClient

    async def post(self, name: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post(f"/v1/runner/{name}", content=_bytes(body), headers=headers)

    async def put(self, body: Any, **headers: str) -> httpx.Response:
        return await self.http.put("/v1/runner/async", content=_bytes(body), headers=headers)

    async def poll(self, limit: int | None = None, wait_s: float = 30, *without: str) -> list[dict[str, Any]]:
        query = {"wait_s": str(wait_s)} | ({"limit": str(limit)} if limit else {})
        query |= {"without": json.dumps(without)} if without else {}
        answer = await self.http.get("/v1/runner/async", params=query)
        assert answer.status_code == 200, answer.text
        calls: list[dict[str, Any]] = answer.json()["calls"]
        return calls

    async def status(self, call_id: str) -> str:
        return (await self.datastore.get_call("app", call_id)).status


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def call(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": call_id, "app_name": "app", "path": "/p", "type": "async", "image": "x", **fields}


@contextlib.asynccontextmanager
async def serving(
    datastore: SqlDatastore, *, token: str | None = None, visibility_s: float = 60
) -> AsyncIterator[World]:
    queue = await open_queue("memory://", CLOCK, visibility_s=visibility_s)
    world = World(queue, datastore)
    async with world.dispatcher:
        keys = LocalIdempotencyKeys(datastore, CLOCK)
        runners = RunnerApi(world.records, world.accepted, datastore, CLOCK, world.dispatcher, keys=keys)
        api: ASGIApp = Api(datastore, CLOCK, dict, runners=runners)
        if token is not None:
            api = guarded(api, runner=token)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://localhost") as world.http:
            yield world
        await runners.close()
    await world.records.close()
    await world.accepted.close()
    await queue.close()


@pytest.fixture
async def world(datastore: SqlDatastore) -> AsyncIterator[World]:
    async with serving(datastore) as opened:
        yield opened


# -- Fn's own requests ------------------------------------------------------------------------------------------------


async def test_a_call_of_a_runner_is_queued(world: World) -> None:
    answer = await world.put(call("1", status="running", priority=None))
    assert (answer.status_code, answer.json()) == (200, {"msg": "enqueued call"})
    assert await world.status("1") == QUEUED
    assert (await world.http.post("/v1/runner/async", content=_bytes(call("2")))).status_code == 200


@pytest.mark.parametrize("body", [b"", b"x", b"[]", {}, {"id": "1", "app_name": "a"}, {"id": "", "app_name": "a"}])
@pytest.mark.parametrize("name", ["async", "start", "finish"])
async def test_what_is_no_call_is_refused(world: World, name: str, body: Any) -> None:
    answer = await world.post(name, body)
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "Invalid JSON"}})


async def test_a_call_that_the_database_refuses_keeps_none_from_its_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = world.datastore.add_calls

    async def picky(accepted: list[Call]) -> None:
        if any(one.id == "bad" for one in accepted):
            raise StoreRefused("no")
        await add(accepted)

    monkeypatch.setattr(world.datastore, "add_calls", picky)
    answers = await asyncio.gather(*[world.put(call(name)) for name in ("1", "2", "bad", "3")])
    assert {answer.status_code for answer in answers} == {200}
    assert {await world.status(name) for name in "123"} == {QUEUED}
    assert len(await world.queue.reserve(10)) == 4, "it runs all the same"


async def test_a_call_that_is_enqueued_again_runs_once(world: World) -> None:
    first, second = await asyncio.gather(world.put(call("1")), world.put(call("1")))
    third = await world.put(call("1"), **{"Hearth-Attempt": "2"})
    assert {first.status_code, second.status_code, third.status_code} == {200}
    assert len(await world.poll(limit=10)) == 1
    assert await world.poll(limit=10, wait_s=0) == []


async def test_a_call_enqueued_again_through_another_node_runs_once(world: World) -> None:
    await world.accepted.enqueue(_call("1"))
    assert (await world.put(call("1"), **{"Hearth-Attempt": "2"})).status_code == 200
    assert len(await world.poll(limit=10)) == 1


async def test_a_runner_gets_the_whole_call(world: World) -> None:
    sent = call("1", payload="in", config={"A": "b"}, headers={"X": ["1", "2"]}, url="http://h/r/app/p", method="POST")
    await world.put(sent)
    (got,) = await world.poll()
    assert {name: got[name] for name in sent} == sent
    assert got["status"] == QUEUED


async def test_a_poll_ends_with_nothing_after_its_time(world: World) -> None:
    assert await world.poll(wait_s=0.05) == []


async def test_a_push_ends_a_poll_at_once(world: World) -> None:
    polls = [asyncio.ensure_future(world.poll()) for _ in range(3)]
    while repr(world.dispatcher) != "<Dispatcher waiting=3>":
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        for number in range(3):
            await world.put(call(str(number)))
        got = [(await poll)[0]["id"] for poll in polls]
    assert got == ["0", "1", "2"]


async def test_what_is_there_is_dealt_out_evenly(world: World) -> None:
    polls = [asyncio.ensure_future(world.poll(limit=10)) for _ in range(2)]
    while repr(world.dispatcher) != "<Dispatcher waiting=2>":
        await asyncio.sleep(0)
    await world.queue.push([_call(str(n)) for n in range(6)])
    assert [len(await poll) for poll in polls] == [3, 3]


async def test_the_start_is_a_swap_and_takes_the_message(world: World) -> None:
    await world.put(call("1"))
    (got,) = await world.poll()
    answer = await world.post("start", {**got, "started_at": "2026-01-01T00:00:00.000Z"})
    assert (answer.status_code, answer.json()) == (200, {"msg": "slingshot: engage"})
    assert await world.status("1") == RUNNING
    assert await world.queue.reserve(10) == []


async def test_the_same_start_again_is_no_second_one(world: World) -> None:
    await world.put(call("1"))
    (got,) = await world.poll()
    start = {**got, "started_at": "2026-01-01T00:00:00.000Z"}
    for _ in range(3):  # its answers were lost
        assert (await world.post("start", start)).status_code == 200
    other = await world.post("start", {**got, "started_at": "2026-01-01T00:00:01.000Z"})
    message = {"error": {"message": "Call to be updated is different from expected"}}
    assert (other.status_code, other.json()) == (409, message)
    assert await world.status("1") == ERROR


async def test_a_call_that_has_ended_is_not_started(world: World) -> None:
    await world.put(call("1"))
    (got,) = await world.poll()
    await world.post("finish", {"call": {**got, "status": SUCCESS}, "log": ""})
    assert (await world.post("start", got)).status_code == 409
    assert await world.status("1") == SUCCESS
    assert await world.queue.reserve(10) == []


async def test_a_runner_whose_time_is_over_does_not_start(datastore: SqlDatastore) -> None:
    async with serving(datastore, visibility_s=0.05) as world:
        await world.put(call("1"))
        (late,) = await world.poll()
        (got,) = await world.poll(limit=1)
        assert (await world.post("start", late)).status_code == 409
        assert await world.status("1") == QUEUED
        assert got["deliveries"] == 2


@pytest.mark.parametrize("wrapped", [True, False])
async def test_an_end_is_stored_however_often_it_is_told(world: World, wrapped: bool) -> None:
    ended = call("1", status=SUCCESS, type="sync")
    for _ in range(2):
        answer = await world.post("finish", {"call": ended, "log": "a log"} if wrapped else ended)
        assert (answer.status_code, answer.json()) == (200, {"msg": "good night, sweet prince"})
    assert await world.status("1") == SUCCESS
    assert await read_all(await world.datastore.get_log("app", "1")) == (b"a log" if wrapped else b"")


async def test_bytes_of_a_log_survive(world: World) -> None:
    log = bytes(range(256))
    body = {"call": call("1", status=SUCCESS), "log": base64.b64encode(log).decode(), "log_encoding": "base64"}
    assert (await world.post("finish", body)).status_code == 200
    assert await read_all(await world.datastore.get_log("app", "1")) == log
    assert (await world.post("finish", {**body, "log": "?"})).status_code == 400


async def test_an_end_that_is_not_stored_is_answered_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.records, "finish_many", fail)
    assert (await world.post("finish", {"call": call("1", status=SUCCESS), "log": ""})).status_code == 200
    batch = {"ended": [{"call": call("1", status=SUCCESS), "log": ""}]}
    assert (await world.post("finish", batch)).status_code == 500, "a batch is kept by its runner, and told again"


async def test_an_end_that_is_refused_takes_none_of_another_runner_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.records.finish_many

    async def picky(ended: list[EndedCall]) -> None:
        if any(one.call.id == "bad" for one in ended):
            raise StoreRefused("no")
        await store(ended)

    monkeypatch.setattr(world.records, "finish_many", picky)
    batches = [{"ended": [{"call": call(name, status=SUCCESS), "log": ""}]} for name in ("1", "2", "bad", "3")]
    answers = await asyncio.gather(*[world.post("finish", batch) for batch in batches])
    assert [answer.status_code for answer in answers] == [200, 200, 422, 200]
    assert {await world.status(name) for name in "123"} == {SUCCESS}


async def test_a_message_that_nobody_can_run_is_not_handed_to_a_runner_of_fn(world: World) -> None:
    damaged = json.dumps(call("1", timeout="x")).encode()
    world.queue._messages.insert([NewMessage(0, True, 0, damaged, "1", "a")])  # type: ignore[attr-defined]
    assert await world.poll(wait_s=1) == []
    assert await world.status("1") == ERROR
    assert await world.queue.reserve(10) == []


# -- what Hearth's runners need beyond them ---------------------------------------------------------------------------


async def test_a_lease_is_renewed_released_and_settled(world: World) -> None:
    await world.put(call("1"))
    (got,) = await world.poll(limit=5)
    lease = got["lease"]
    assert got["deliveries"] == 1
    assert 59 < got["lease_s"] <= 60
    assert (await world.post("renew", {"leases": [lease, "x"]})).json() == {"held": [True, False], "visibility_s": 60}
    assert (await world.post("release", {"leases": [{"lease": lease}]})).status_code == 200
    (again,) = await world.poll(limit=5)
    assert again["deliveries"] == 2
    assert (await world.post("settle", {"leases": [lease, again["lease"]]})).json() == {"held": [False, True]}
    assert await world.queue.reserve(10) == []


async def test_the_next_attempt_takes_the_place_of_the_last_one(world: World) -> None:
    await world.put(call("a", payload="x" * 100_000, attempt=1, retry={"attempts": 2}))
    (handed,) = await world.poll(1)
    assert (await world.post("start", {"calls": [handed]})).json() == {"found": [""]}
    again = Call(id="a", app_name="app", path="/p", type="async", image="x", status="queued", attempt=2)
    again.payload = b"\xff" * 100_000
    again.attempts = (Attempt(attempt=1, status="error"),)
    body = protocol.encode_retry(handed["lease"], EndedCall(again, b"\xff log"), 0.0)
    assert (await world.post("retry", body)).json() == {"held": [True]}
    stored = await world.datastore.get_call("app", "a")
    assert (stored.status, stored.attempt, stored.attempts) == ("queued", 2, again.attempts)
    assert (await world.post("retry", body)).json() == {"held": [True]}, "sent again after a lost answer"
    (reserved,) = await world.queue.reserve(10)
    assert (reserved.call.attempt, reserved.call.payload) == (2, again.payload)
    later = protocol.encode_retry(handed["lease"], EndedCall(msgspec.structs.replace(again, attempt=3), b""), 0.0)
    assert (await world.post("retry", later)).json() == {"held": [False]}, "its lease is over"
    assert (await world.post("retry", b"{}")).status_code == 400


async def test_many_start_at_once(world: World) -> None:
    await world.accepted.enqueue(_call("1"))
    await world.post("finish", {"call": call("2", status=SUCCESS), "log": ""})
    first, other = "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.000Z"
    starts = [call("1", started_at=first), call("2", started_at=first), call("3", started_at=first)]
    assert (await world.post("start", {"calls": starts})).json() == {"found": ["", SUCCESS, ""]}
    starts = [call("1", started_at=first), call("3", started_at=other)]
    assert (await world.post("start", {"calls": starts})).json() == {"found": ["", RUNNING]}


async def test_a_call_whose_runner_died_is_completed_only_if_it_says_running(world: World) -> None:
    await world.post("start", {"calls": [call("1")]})
    body = {"call": call("1", status=ERROR, error="died"), "log": "", "interrupted": True}
    assert (await world.post("finish", body)).status_code == 200
    assert await world.status("1") == ERROR
    await world.post("finish", {"call": call("2", status=SUCCESS), "log": ""})
    await world.post("finish", {**body, "call": call("2", status=ERROR)})
    assert await world.status("2") == SUCCESS


async def test_a_node_that_stops_ends_polls_at_once(world: World) -> None:
    poll = asyncio.ensure_future(world.poll())
    while repr(world.dispatcher) != "<Dispatcher waiting=1>":
        await asyncio.sleep(0)
    world.dispatcher.stop()
    async with asyncio.timeout(20):
        assert await poll == []
    assert (await world.http.get("/v1/runner/async")).status_code == 503


async def test_each_runner_gets_calls_of_the_apps_that_it_does_not_leave_out(world: World) -> None:
    async def waiting(count: int) -> None:
        while repr(world.dispatcher) != f"<Dispatcher waiting={count}>":
            await asyncio.sleep(0)

    full = asyncio.ensure_future(world.poll(10, 30, "app", "third"))
    await waiting(1)
    await world.accepted.enqueue(_call("1"))
    other = asyncio.ensure_future(world.poll(10, 30, "b"))
    assert [one["id"] for one in await other] == ["1"]
    await world.accepted.enqueue(_call("2"))
    await waiting(1)
    await world.accepted.enqueue(msgspec.structs.replace(_call("3"), app_name="b"))
    assert [one["id"] for one in await full] == ["3"]
    assert [one["id"] for one in await world.poll(10)] == ["2"]
    assert repr(world.dispatcher) == "<Dispatcher waiting=0>"


@pytest.mark.parametrize("without", ["x", "1", '{"a": 1}', "[1]"])
async def test_what_names_no_apps_to_leave_out_is_refused(world: World, without: str) -> None:
    answer = await world.http.get("/v1/runner/async", params={"limit": "1", "wait_s": "0", "without": without})
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "Invalid JSON"}})


async def test_a_call_that_is_dealt_to_one_who_gives_up_goes_to_another(world: World) -> None:
    for step in range(12):
        poll = asyncio.ensure_future(world.dispatcher.take(1, 30))
        while repr(world.dispatcher) != "<Dispatcher waiting=1>":
            await asyncio.sleep(0)
        await world.accepted.enqueue(_call(f"{step}"))
        for _ in range(step):
            await asyncio.sleep(0)
        poll.cancel()
        await asyncio.wait([poll])
        if poll.cancelled():
            async with asyncio.timeout(20):
                (got,) = await world.dispatcher.take(1, 30)
            assert got.call.id == str(step)


async def test_a_node_that_stops_waits_until_its_look_at_the_queue_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, given_up = asyncio.Event(), False

    async def look(*arguments: object) -> list[Reserved]:
        nonlocal given_up
        looking.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            for _step in range(5):  # what was taken is given back
                await asyncio.sleep(0)
            given_up = True

    monkeypatch.setattr(world.accepted, "dequeue", look)
    async with Dispatcher(world.accepted, CLOCK) as dispatcher:
        poll = asyncio.ensure_future(dispatcher.take(1, 30))
        await looking.wait()
    assert given_up
    assert await poll == []


async def test_what_is_taken_in_the_moment_of_the_stop_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dequeue = world.accepted.dequeue
    leaving: list[asyncio.Future[None]] = []

    async def stop_when_taken(limit: int, without: frozenset[str]) -> list[Reserved]:
        taken = await dequeue(limit, without)
        leaving.append(asyncio.ensure_future(dispatcher.__aexit__()))
        return taken

    monkeypatch.setattr(world.accepted, "dequeue", stop_when_taken)
    dispatcher = await Dispatcher(world.accepted, CLOCK).__aenter__()
    poll = asyncio.ensure_future(dispatcher.take(1, 30))
    await world.accepted.enqueue(_call("1"))
    assert await poll == []
    await leaving[0]
    async with asyncio.timeout(20):
        assert [one.call.id for one in await dequeue(1)] == ["1"]


# -- the secret -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret"])
async def test_runners_without_the_secret_are_refused(datastore: SqlDatastore, shown: str) -> None:
    async with serving(datastore, token="s3cret") as world:
        headers = {"Authorization": shown} if shown else {}
        for name in ("async", "start", "finish", "renew", "settle", "release", "secrets", "tokens", "pin", "keys"):
            answer = await world.post(name, call("1"), **headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (await world.http.get("/v1/apps")).status_code == 200


@pytest.mark.parametrize("digest", ["", "\0", "0" * 63, "0" * 65, "G" * 64, "é" * 64, "0" * 64 + "\n", 0])
async def test_what_is_no_digest_of_a_token_reaches_no_database(world: World, digest: object) -> None:
    answer = await world.post("tokens", {"digests": ["0" * 64, digest]})
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "Invalid JSON"}})
    found = await world.post("tokens", {"digests": ["0" * 64]})
    assert (found.status_code, found.json()) == (200, {"found": [{}]})
    assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "wrong",
    [{"id": "1" * 63}, {"call_id": ""}, {"app_name": "a\0"}, {"fingerprint": 1}, {"is_sync": 1}, {"ttl_s": 0}],
)
async def test_a_claim_of_the_wrong_form_reaches_no_database(world: World, wrong: dict[str, object]) -> None:
    claim = {"id": "1" * 64, "app_name": "a", "call_id": "A", "fingerprint": "f" * 64, "is_sync": True, "ttl_s": 60}
    answer = await world.post("keys", {"claim": {**claim, **wrong}})
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "Invalid JSON"}})
    found = await world.post("keys", {"claim": claim})
    assert found.json() == {"call_id": "A", "fingerprint": "f" * 64, "state": "running", "is_held": True}
    assert (await world.post("keys", {"end": {"id": claim["id"], "call_id": "A", "ttl_s": 60}})).json() == {
        "is_ended": True
    }


async def test_a_runner_pins_the_image_of_a_function(world: World) -> None:
    await world.datastore.insert_app(App(name="app"))
    await world.datastore.insert_route(Route(app_name="app", path="/p", image="x"))
    pin = {"app_name": "app", "function": "/p", "image": "x", "digest": f"sha256:{'1' * 64}"}
    for wrong in ({"digest": "1" * 64}, {"digest": f"sha256:{'1' * 63}"}, {"image": "x\0"}, {"function": 1}):
        answer = await world.post("pin", {**pin, **wrong})
        assert (answer.status_code, answer.json()) == (400, {"error": {"message": "Invalid JSON"}})
    assert (await world.datastore.get_route("app", "/p")).digest == ""
    for _ in range(2):  # an answer may be lost
        assert (await world.post("pin", pin)).json() == {"msg": "pinned"}
    assert (await world.datastore.get_route("app", "/p")).digest == pin["digest"]


@pytest.mark.parametrize("shown", ["", "Bearer s3cret", "Bearer "])
async def test_without_a_secret_nobody_is_served(datastore: SqlDatastore, shown: str) -> None:
    async with serving(datastore, token="") as world:
        await world.datastore.add_calls([_call("1")])
        for name in ("async", "start", "finish", "renew", "settle", "release"):
            answer = await world.post(name, call("1"), Authorization=shown)
            assert (answer.status_code, "FN_RUNNER_TOKEN" in answer.json()["error"]["message"]) == (403, True)
        answer = await world.http.get("/v1/runner/async", headers={"Authorization": shown})
        assert answer.status_code == 403
        assert await world.status("1") == QUEUED


async def test_runners_with_the_secret_are_served(datastore: SqlDatastore) -> None:
    async with serving(datastore, token="s3cret") as world:
        assert (await world.put(call("1"), Authorization="Bearer s3cret")).status_code == 200


def _call(call_id: str) -> Call:
    return decode_call(json.dumps(call(call_id, status=QUEUED)).encode())
