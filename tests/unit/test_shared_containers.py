"""Containers that run several calls at once, scripted and in virtual time: whole lives, and random ones."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.support.agent import Bench, Sink, bench, play_out, settle
from tests.support.virtual_time import run

from hearth.agent.shared import SharedContainer
from hearth.drivers.base import Exit, StartFailed
from hearth.models.errors import CallTimeout, FunctionBroken, FunctionGone, HearthError
from hearth.models.function import NOTHING, Amount, FunctionSpec
from hearth.testing.script import Pipe, Script, Step

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
TOTAL = Amount(600, 8000)
N = 3


class Crowd:
    """A function that listens, and runs each connection by itself.

    Attributes:
        inside: Calls that run now.
        most: The most that ran at once.
        ignores: It goes on with a call whose connection has ended.
        connections: The number of connections that it got.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.inside = self.most = 0
        self.ignores = False
        self.held = asyncio.Event()

    async def __call__(self, stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        self.connections += 1
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                if not (data := await stdin.read()):
                    return 0
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            while len(received) < length:
                if not (data := await stdin.read()):
                    return 0
                received += data
            orders, received = json.loads(received[:length]), received[length:]
            code = await self.serve(orders, stdin, stdout, stderr)
            if code is not None:
                return code

    async def serve(self, orders: dict[str, Any], stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int | None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        work = asyncio.ensure_future(self.work(orders))
        hung_up = asyncio.ensure_future(stdin.read())
        try:
            await asyncio.wait([work] if self.ignores else [work, hung_up], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return 0
        finally:
            self.inside -= 1
            for task in (work, hung_up):
                task.cancel()
            await asyncio.gather(work, hung_up, return_exceptions=True)
        for piece in orders.get("say", ()):
            await stderr.write(piece.encode())
            await settle()
        if "exit" in orders:
            return int(orders["exit"])
        if "status" in orders:
            await stdout.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % orders["status"])
            return None
        text = orders["echo"].encode()
        answer = OK % (len(text), text)
        await stdout.write(answer[:-3] if "half" in orders else answer)
        if "half" in orders:
            return 0
        if "later" in orders:
            await asyncio.sleep(orders["later"])
            await stdout.write(OK % (4, b"late"))
        return None

    async def work(self, orders: dict[str, Any]) -> None:
        await asyncio.sleep(orders.get("sleep", 0))
        if "hold" in orders:
            await self.held.wait()


def shared(on: Bench, path: str = "/f", **fields: Any) -> FunctionSpec:
    return on.function(path, **{"image": "crowd", "format": "http-stream", "concurrency": N, "timeout": 8, **fields})


def containers(on: Bench) -> list[Any]:
    return [hot for launcher in on.agent.pool.launchers.values() for hot in launcher.containers]


def crowded(crowd: Crowd) -> dict[str, Any]:
    return {"crowd": Script(main=crowd)}


def test_calls_at_once_share_one_container_up_to_the_limit() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            calls = [on.start(function, hold=True, echo=str(n)) for n in range(2 * N + 1)]
            await asyncio.sleep(1)
            assert crowd.inside == 2 * N + 1
            assert crowd.most == 2 * N + 1
            assert len(containers(on)) == 3
            assert on.agent.pool.resources.used.memory_mib == 3 * 128
            crowd.held.set()
            assert await asyncio.gather(*calls) == [str(n) for n in range(2 * N + 1)]

    run(play())


def slots(on: Bench, path: str = "/f") -> tuple[float, float]:
    """The taken and the free slots of a function, as its metrics say."""
    gauges = (on.agent.telemetry.metrics.gauge(f"hearth_slots_{state}") for state in ("taken", "free"))
    taken, free = (gauge.series("a", path).value for gauge in gauges)
    return taken, free


def test_metrics_tell_how_many_slots_are_taken_and_free() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            calls = [on.start(function, hold=True, echo="") for _ in range(N + 1)]
            await asyncio.sleep(1)
            assert slots(on) == (N + 1, N - 1)
            crowd.held.set()
            await asyncio.gather(*calls)
            assert slots(on) == (0, 2 * N)
            crowd.ignores = True
            given_up = on.start(function, sleep=3, echo="")
            await asyncio.sleep(0.1)
            given_up.cancel()
            await settle()
            assert slots(on) == (1, 2 * N - 1)  # the function still runs it
            for hot in containers(on):
                hot.retire("for a test")
            assert slots(on) == (1, 0)
            await asyncio.sleep(4)
            assert slots(on) == (0, 0)

    run(play())


def test_slots_of_a_container_that_works_are_taken_before_those_of_an_idle_one() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            await asyncio.gather(*[on.ask(function, sleep=0.5, echo="") for _ in range(2 * N)])
            assert len(containers(on)) == 2
            for _ in range(8):
                calls = [on.start(function, sleep=0.1, echo="") for _ in range(N)]
                await asyncio.sleep(0.05)
                assert sorted(hot.state.value for hot in containers(on)) == ["busy", "idle"]
                await asyncio.gather(*calls)

    run(play())


def test_a_late_call_ends_alone_if_the_function_sees_that_it_is_given_up() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            late = on.start(function, sleep=100, echo="late")
            await asyncio.sleep(7)
            other = on.start(function, sleep=3, echo="other")
            with pytest.raises(CallTimeout):
                await late
            assert await other == "other"
            assert on.driver.counts.started == 1
            assert crowd.inside == 0
            (hot,) = containers(on)
            assert hot.state.value == "idle"
            assert len(on.agent.pool.launchers[function.hot_key].queue.free) == N

    run(play())


def test_a_slot_rests_while_the_function_goes_on_with_a_call_that_was_given_up() -> None:
    async def play() -> None:
        crowd = Crowd()
        crowd.ignores = True
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            await on.ask(function, echo="")
            gone = on.start(function, sleep=3, echo="gone")
            await asyncio.sleep(0.1)
            gone.cancel()
            await settle()
            queue = on.agent.pool.launchers[function.hot_key].queue
            assert len(queue.free) == N - 1
            (hot,) = containers(on)
            assert hot.state.value == "busy"  # nobody may evict it: the function works
            await asyncio.sleep(4)
            assert (len(queue.free), hot.state.value, on.driver.counts.started) == (N, "idle", 1)

    run(play())


def test_a_container_that_does_not_end_a_call_in_time_is_replaced_once_the_others_have_ended() -> None:
    async def play() -> None:
        crowd = Crowd()
        crowd.ignores = True
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            gone = on.start(function, sleep=1000, echo="gone")
            await asyncio.sleep(0.1)
            gone.cancel()
            other = on.start(function, sleep=7, echo="other")
            await asyncio.sleep(6)
            assert await on.ask(function, echo="new") == "new"
            assert on.driver.counts.started == 2
            assert not other.done()
            assert await other == "other"
            await settle()
            assert on.driver.counts.removed == 1
            crowd.ignores = True
            gone = on.start(function, sleep=1000, echo="gone")
            await asyncio.sleep(0.1)
            gone.cancel()
            await asyncio.sleep(6)
            assert on.driver.counts.removed == 2  # no other call keeps it

    run(play())


@pytest.mark.parametrize(
    ("orders", "error"),
    [({"status": 500}, FunctionBroken), ({"half": True}, FunctionGone), ({"later": 0.0}, None)],
)
def test_a_broken_answer_retires_the_container_and_harms_no_call_beside_it(
    orders: dict[str, Any], error: type[Exception] | None
) -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            other = on.start(function, sleep=5, echo="other")
            await asyncio.sleep(0.1)
            if error is None:
                assert await on.ask(function, echo="bad", **orders) == "bad"
            else:
                with pytest.raises(error):
                    await on.ask(function, echo="bad", **orders)
            for number in range(2 * N):
                assert await on.ask(function, echo=f"next {number}") == f"next {number}"
            assert await other == "other"
            assert on.driver.counts.started == (1 if error is None else 2)

    run(play())


def test_the_exit_of_a_container_ends_its_calls_and_no_further_one_gets_it() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            other = on.start(function, sleep=5, echo="other")
            await asyncio.sleep(0.1)
            with pytest.raises(FunctionGone):
                await on.ask(function, echo="", exit=3)
            with pytest.raises(FunctionGone):
                await other
            assert await on.ask(function, echo="new") == "new"
            assert on.statuses() == ["error", "error", "success"]

    run(play())


def test_a_failed_start_fails_the_calls_that_it_was_for() -> None:
    async def play() -> None:
        script = Script(main=Crowd(), start=Step(error=StartFailed("trouble"), failures=1))
        async with bench(total=TOTAL, images={"crowd": script}) as on:
            function = shared(on)
            calls = [on.start(function, echo="x") for _ in range(N + 1)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(one, StartFailed) for one in ended].count(True) == N
            assert ended.count("x") == 1

    run(play())


def test_lines_that_name_a_call_are_in_its_log_and_no_others() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            await on.ask(function, echo="")
            (hot,) = containers(on)
            assert isinstance(hot, SharedContainer)
            mark = on.driver.containers[hot.container.id].spec.env["FN_LOGFRAME_NAME"]
            assert len(mark) == 16
            assert on.driver.containers[hot.container.id].spec.env["FN_LOGFRAME_HDR"] == "Fn-Call-Id"
            calls = [on.call(function, Sink(), hold=True, echo="") for _ in range(2)]
            tasks = [asyncio.ensure_future(on.agent.submit(call)) for call in calls]
            on.submitted += 2
            await settle()
            one, two = (call.record.id for call in calls)
            said = f"{mark}={one} 1a\n{mark}={two} 2a\nnobody's\n{mark}={two}\nnor this\n{mark}={one} 1b\n"
            said += f"{mark}x={one} no\n"
            await on.ask(function, say=[said[:20], said[20:61], said[61:]], echo="")
            crowd.held.set()
            await asyncio.gather(*tasks)
            logs = {ended.call.id: ended.log for ended in on.records.ended}
            assert (logs[one], logs[two]) == (b"1a\n1b\n", b"2a\n")

    run(play())


def test_an_idle_container_gives_way_and_one_with_a_call_does_not() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=Amount(400, 8000), images=crowded(crowd)) as on:
            first, second = shared(on, "/1", memory=300), shared(on, "/2", memory=300)
            call = on.start(first, sleep=2, echo="first")
            await asyncio.sleep(0.1)
            other = on.start(second, echo="second")
            await asyncio.sleep(1)
            assert not other.done()
            assert await call == "first"
            assert await other == "second"
            assert on.driver.counts.peak_memory_mib == 300

    run(play())


def test_a_container_that_has_gone_leaves_nothing_to_the_garbage_collector() -> None:
    async def play() -> None:
        async with bench(images=crowded(Crowd())) as on:
            assert await on.ask(shared(on, idle_timeout=1), echo="x") == "x"
            (hot,) = containers(on)
            gone = weakref.ref(hot)
            del hot
            await asyncio.sleep(2)
            await settle()
            assert gone() is None
            on.driver.images["bad"] = Script(start=Step(delay_s=1, error=StartFailed("no", image_fault=True)))
            call = on.start(shared(on, "/bad", image="bad"), echo="x")
            await asyncio.sleep(0.5)
            (gone,) = [weakref.ref(hot) for hot in containers(on)]
            with pytest.raises(HearthError):
                await call
            del call
            await settle()
            assert gone() is None

    gc.disable()
    try:
        run(play())
    finally:
        gc.enable()


def test_a_drain_lets_all_calls_of_a_container_end() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(total=TOTAL, images=crowded(crowd)) as on:
            function = shared(on)
            calls = [on.start(function, sleep=n, echo=str(n)) for n in range(1, N + 1)]
            await asyncio.sleep(0.5)
            on.agent.drain()
            assert await asyncio.gather(*calls) == ["1", "2", "3"]

    run(play())


NUMBER = st.integers(0, 11)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from([0.0, 0.3, 4.0, 50.0])),
        st.tuples(st.sampled_from(["burst", "leave", "die", "spoil", "stubborn", "change", "other"]), NUMBER),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.05, 0.5, 3.0, 7.0])),
    ),
    min_size=8,
    max_size=40,
)


class Play:
    """One random life of a function whose containers run several calls at once, beside one that needs their room."""

    def __init__(self, on: Bench, crowd: Crowd) -> None:
        self.on, self.crowd = on, crowd
        self.version = 0
        self.calls: list[tuple[str, asyncio.Task[str]]] = []
        self.function = self.made()
        self.single = on.function("/single", image="crowd", format="http-stream", memory=500, timeout=8)

    def made(self) -> FunctionSpec:
        return shared(self.on, memory=200, config={"V": str(self.version)})

    async def step(self, action: str, number: Any) -> None:
        getattr(self, f"do_{action}")(number)
        await asyncio.sleep(number if action == "pass" else 0)

    def do_pass(self, seconds: float) -> None: ...

    def do_call(self, sleep: float, **orders: Any) -> None:
        text = f"answer {len(self.calls)}"
        self.calls.append((text, self.on.start(self.function, sleep=sleep, echo=text, **orders)))

    def do_burst(self, number: int) -> None:
        for _ in range(number):
            self.do_call(0.3)

    def do_leave(self, number: int) -> None:
        if self.calls:
            self.calls[number % len(self.calls)][1].cancel()

    def do_die(self, number: int) -> None:
        if alive := list(self.on.driver.containers.values()):
            alive[number % len(alive)].end(Exit(137))

    def do_spoil(self, number: int) -> None:
        faults: list[dict[str, Any]] = [{"status": 500}, {"half": True}, {"later": 0.05}, {"exit": 1}]
        self.do_call(0.1, **faults[number % 4])

    def do_stubborn(self, number: int) -> None:
        self.crowd.ignores = number % 2 == 0

    def do_change(self, number: int) -> None:
        self.version += 1
        self.function = self.made()

    def do_other(self, number: int) -> None:
        text = f"single {len(self.calls)}"
        self.calls.append((text, self.on.start(self.single, echo=text)))

    def check(self) -> None:
        """The invariants that hold at every moment."""
        agent, driver = self.on.agent, self.on.driver
        assert NOTHING.fits(agent.pool.resources.used)
        assert agent.pool.resources.used.fits(TOTAL), "more is granted than there is"
        assert driver.counts.memory_mib <= agent.pool.resources.used.memory_mib, "memory was given out twice"
        total = agent.stats.total
        assert min(total.queue, total.running) >= 0
        assert total.queue + total.running + total.complete + total.failed + total.busy == self.on.submitted
        standby = set()
        for launcher in agent.pool.launchers.values():
            queue = launcher.queue
            assert not (queue.free and queue.waiters), "a waiter and an idle slot"
            assert len(queue.free) == len(set(queue.free)), "a slot is offered twice"
            for hot in launcher.containers:
                if not isinstance(hot, SharedContainer):
                    standby |= {hot} if hot.state.value == "idle" and not hot.is_leaving else set()
                    continue
                free = sum(getattr(slot, "hot", None) is hot for slot in queue.free)
                resting = len(hot.resting)
                serves = hot.state.value in ("idle", "busy") and not hot.is_leaving
                assert free + hot.calls + resting == N if serves else free == 0, "a slot is lost"
                assert 0 <= hot.calls <= N
                if serves:
                    assert (hot.state.value == "idle") is (hot.calls + resting == 0)
                    standby |= {hot} if hot.state.value == "idle" else set()
        assert standby == set(agent.pool.host.standby.idle), "an idle container cannot give way, or a busy one may"

    async def finish(self) -> None:
        """Let every call end, and check that each got its own answer."""
        self.crowd.ignores = False
        await asyncio.sleep(30)
        for text, task in self.calls:
            assert task.done(), "a call never ended"
            if not task.cancelled() and task.exception() is None:
                assert task.result() == text, "somebody else's answer"
            elif not task.cancelled():
                assert isinstance(task.exception(), HearthError), task.exception()
        self.on.agent.pool.host.probation.suspects.clear()
        assert await self.on.ask(self.function, echo="still here") == "still here"


async def _play(steps: list[Any]) -> None:
    crowd = Crowd()
    script = Script(main=crowd, create=Step(delay_s=0.02), start=Step(delay_s=0.05), remove=Step(delay_s=0.03))
    async with bench(total=TOTAL, images={"crowd": script}) as on:
        await play_out(Play(on, crowd), steps)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(steps=STEPS)
def test_whatever_happens_calls_get_their_own_answers_and_no_slot_is_lost(steps: list[Any]) -> None:
    run(_play(steps))
